"""Which episode a seed, a stream and a number mean, against a slow drawing of lists: published figures hang on it."""

import numpy as np
import pytest
from slow_draws import slow_distinct, slow_uniforms

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.samplers import EpisodeSampler

GROUPS = {"Greek": 5, "Latin": 2, "Runes": 4}  # classes of each
IMAGES = [[number for number in range(11 * 6) if number * 7 % 11 == c] for c in range(11)]  # of each class, scattered


def table() -> ClassTable:
    labels = np.array([number * 7 % 11 for number in range(11 * 6)])
    groups = [group for group, size in GROUPS.items() for _ in range(size)]
    return ClassTable.build(labels, [f"class{c:02d}" for c in range(11)], groups, np.arange(len(labels)))


def slow_episode(
    k: int, *, n_way: int, n_shot: int, n_query: int, within_group: bool, seed: int, stream: str
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Uniform numbers in turn for the group, the classes, the images of each class, and the order of the queries."""
    per_class = n_shot + n_query
    numbers = iter(slow_uniforms(seed, stream, k, 1 + n_way + n_way * per_class + n_way * n_query))
    of_group, pool = next(numbers), list(range(11))
    if within_group:
        pools = [[0, 1, 2, 3, 4], [7, 8, 9, 10]]  # Latin has too few classes
        pool = pools[int(of_group * 2)]
    ways = [pool[rank] for rank in slow_distinct([next(numbers) for _ in range(n_way)], len(pool))]
    support, query = [], []
    for label, c in enumerate(ways):
        images = [IMAGES[c][rank] for rank in slow_distinct([next(numbers) for _ in range(per_class)], 6)]
        support += [(image, label) for image in images[:n_shot]]
        query += [(image, label) for image in images[n_shot:]]
    query = [pair for _, pair in sorted((next(numbers), pair) for pair in query)]
    assert not list(numbers)
    return *map(list, zip(*support, strict=True)), *map(list, zip(*query, strict=True))


@pytest.mark.parametrize("within_group", [False, True])
@pytest.mark.parametrize(("seed", "stream"), [(0, "test"), (7, "val")])
def test_an_episode_is_the_one_that_its_seed_stream_and_number_draw(seed: int, stream: str, within_group: bool) -> None:
    options = {"n_way": 3, "n_shot": 2, "n_query": 3, "within_group": within_group, "seed": seed, "stream": stream}
    drawn = EpisodeSampler(table(), **options).draw(4, 24)
    for row, k in enumerate(range(4, 24)):
        found = [each[row].tolist() for each in (drawn.support, drawn.support_labels, drawn.query, drawn.query_labels)]
        assert found == list(slow_episode(k, **options))
