"""Samplers: properties over thousands of items, distributions against theory, and slow loops.

Wherever a label is checked, the class is looked up in the table by the image's index.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from class_tables import CLASS_OF, TABLE, lookup, make_table
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fewshot_runner.data.batch import Batch, Episode
from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.samplers import (
    BatchSampler,
    EpisodeSampler,
    PairSampler,
    PKSampler,
)
from fewshot_runner.errors import UserError


def check_tasks(episode: Episode, table: ClassTable, *, n_way: int, n_shot: int, n_query: int) -> list[list[int]]:
    """All that must hold of every task; returns the class number behind each label, a row a task."""
    class_of = lookup(table)
    behind = []
    assert episode.n_way == n_way
    tasks = zip(episode.support, episode.support_labels, episode.query, episode.query_labels, strict=True)
    for support, support_labels, query, query_labels in tasks:
        support, query = support.tolist(), query.tolist()
        assert len(set(support)) == len(support) == n_way * n_shot
        assert len(set(query)) == len(query) == n_way * n_query
        assert not set(support) & set(query)
        assert np.bincount(support_labels, minlength=n_way).tolist() == [n_shot] * n_way
        assert np.bincount(query_labels, minlength=n_way).tolist() == [n_query] * n_way
        classes: dict[int, set[int]] = {}
        for image, label in [
            *zip(support, support_labels.tolist(), strict=True),
            *zip(query, query_labels.tolist(), strict=True),
        ]:
            classes.setdefault(label, set()).add(class_of[image])
        assert all(len(of_label) == 1 for of_label in classes.values()), "a label means one class"
        row = [classes[label].pop() for label in range(n_way)]
        assert len(set(row)) == n_way, "and a class has one label"
        behind.append(row)
    return behind


@pytest.mark.parametrize("within_group", [False, True])
@pytest.mark.parametrize(("n_way", "n_shot", "n_query"), [(5, 1, 8), (2, 4, 1), (5, 3, 5)])
def test_trap_02_tasks_hold_different_classes_and_images_and_right_labels(n_way, n_shot, n_query, within_group):
    sampler = EpisodeSampler(
        TABLE, n_way=n_way, n_shot=n_shot, n_query=n_query, within_group=within_group, seed=0, stream="test"
    )
    behind = check_tasks(sampler.draw(0, 2000), TABLE, n_way=n_way, n_shot=n_shot, n_query=n_query)
    groups = [{int(TABLE.class_groups[c]) for c in row} for row in behind]
    if within_group:
        assert all(len(of_task) == 1 for of_task in groups)
        large = {g for g, size in enumerate(TABLE.group_sizes) if size >= n_way}
        drawable = {c for c, group in enumerate(TABLE.class_groups) if group in large}
    else:
        assert any(len(of_task) > 1 for of_task in groups)
        drawable = set(range(TABLE.n_classes))
    assert {c for row in behind for c in row} == drawable


@settings(max_examples=60)
@given(st.data())
def test_trap_02_any_table_gives_tasks_without_repeats(data):
    n_way, n_shot, n_query = (data.draw(st.integers(low, 4)) for low in (2, 1, 1))
    size = st.integers(n_shot + n_query, 12)
    groups = data.draw(st.lists(st.lists(size, min_size=1, max_size=5), min_size=1, max_size=4))
    groups.append([n_shot + n_query] * n_way)  # one group is exactly large enough
    table = make_table({f"group{number}": sizes for number, sizes in enumerate(groups)})
    within_group = data.draw(st.booleans())
    sampler = EpisodeSampler(
        table, n_way=n_way, n_shot=n_shot, n_query=n_query, within_group=within_group, episodes=5, seed=1
    )
    behind = check_tasks(sampler[3], table, n_way=n_way, n_shot=n_shot, n_query=n_query)
    if within_group:
        assert all(len(set(table.class_groups[row])) == 1 for row in behind)


def test_groups_that_are_large_enough_are_equally_likely():
    sampler = EpisodeSampler(TABLE, n_way=5, n_shot=1, n_query=1, within_group=True, seed=0)
    groups = [TABLE.class_groups[CLASS_OF[int(task[0])]] for task in sampler.draw(0, 4000).support]
    assert stats.binomtest(groups.count(TABLE.group_names.index("Greek")), 4000, 0.5).pvalue > 1e-4


def test_trap_05_class_order_and_query_order_tell_nothing():
    n_way, n_query, tasks = 3, 2, 6000
    sampler = EpisodeSampler(TABLE, n_way=n_way, n_shot=1, n_query=n_query, seed=0)
    episode = sampler.draw(0, tasks)
    assert not all(labels.tolist() == sorted(labels.tolist()) for labels in episode.query_labels)
    for position in range(n_way * n_query):  # at each place in the row of queries, each label is equally likely
        counts = np.bincount(episode.query_labels[:, position], minlength=n_way)
        assert stats.chisquare(counts).pvalue > 1e-4
    for label in range(n_way):  # behind each label, each class is equally likely
        classes = [CLASS_OF[int(image)] for image in episode.support[:, label]]
        assert stats.chisquare(np.bincount(classes, minlength=TABLE.n_classes)).pvalue > 1e-4


def test_shots_and_queries_of_a_class_are_drawn_alike():
    table = make_table({"": [4, 4]})
    episode = EpisodeSampler(table, n_way=2, n_shot=1, n_query=2, seed=0).draw(0, 6000)
    members = table.members[:4].tolist()
    for images in (episode.support, episode.query):
        drawn = [image for image in images.ravel().tolist() if image in members]
        assert stats.chisquare([drawn.count(image) for image in members]).pvalue > 1e-4


def same(one: Episode | Batch, other: Episode | Batch) -> bool:
    fields = [field for field in one.__slots__ if isinstance(getattr(one, field), torch.Tensor)]
    return all(torch.equal(getattr(one, field), getattr(other, field)) for field in fields)


def join(parts: list[Episode]) -> Episode:
    names = ("support", "support_labels", "query", "query_labels")
    return Episode(*(torch.cat([getattr(part, name) for part in parts]) for name in names), parts[0].n_way)


def test_trap_14_an_episode_does_not_depend_on_the_chunks_it_is_drawn_in():
    def sampler(episodes: int) -> EpisodeSampler:
        return EpisodeSampler(TABLE, n_way=3, n_shot=2, n_query=2, episodes=episodes, seed=0, stream="val")

    whole = sampler(1).draw(0, 100)
    chunks = [(0, 1), (1, 64), (64, 65), (65, 100)]
    assert same(join([sampler(1).draw(*chunk) for chunk in chunks]), whole)
    assert same(join([sampler(20)[k] for k in range(5)]), whole)
    assert same(join([sampler(1)[k] for k in reversed(range(100))][::-1]), whole)
    assert same(sampler(20)[3], whole[60:80])


def samplers(seed: int = 0, stream: str = "train") -> dict[str, object]:
    return {
        "episodes": EpisodeSampler(TABLE, n_way=5, n_shot=1, n_query=2, episodes=2, seed=seed, stream=stream),
        "within group": EpisodeSampler(
            TABLE, n_way=5, n_shot=1, n_query=2, within_group=True, seed=seed, stream=stream
        ),
        "pairs": PairSampler(TABLE, n_pairs=16, seed=seed, stream=stream),
        "P classes, K images": PKSampler(TABLE, n_classes=6, n_images=4, n_groups=2, seed=seed),
        "batches": BatchSampler(TABLE, batch_size=10, seed=seed),
    }


FOR_TRAINING_ALONE = ("P classes, K images", "batches")


@pytest.mark.parametrize("kind", samplers())
def test_trap_14_item_k_is_a_function_of_seed_stream_and_k_alone(kind):
    ordered = [samplers()[kind][k] for k in range(30)]
    one = samplers()[kind]
    for k in np.random.default_rng(0).permutation(60) % 30:  # any order, each item twice
        assert same(one[k], ordered[k])
    for k in range(1, 30):
        assert not same(ordered[k], ordered[k - 1])
    assert not same(samplers(seed=1)[kind][0], ordered[0])
    if kind not in FOR_TRAINING_ALONE:
        assert not same(samplers(stream="val")[kind][0], ordered[0])


def test_trap_14_another_process_draws_the_same_items():
    program = (
        f"import sys; sys.path[:0] = {[str(folder) for folder in Path(__file__).parents[:2]]}\n"
        "from test_samplers import samplers\n"
        "print([repr(sampler[7]) for sampler in samplers().values()])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert answer == f"{[repr(sampler[7]) for sampler in samplers().values()]}\n"


@pytest.mark.parametrize("kind", samplers())
def test_items_are_indices_of_the_table_with_right_labels_and_groups(kind):
    for k in range(20):
        item = samplers()[kind][k]
        images = torch.cat([item.support, item.query], 1) if isinstance(item, Episode) else item.images
        assert images.dtype == torch.int64
        assert set(images.ravel().tolist()) <= set(CLASS_OF)
        if isinstance(item, Batch):
            classes = [CLASS_OF[int(image)] for image in images]
            assert item.labels.tolist() == classes
            assert item.groups.tolist() == [int(TABLE.class_groups[c]) for c in classes]
            assert item.n_images == len(images)


def test_all_ways_take_every_class_in_another_order_each_time():
    sampler = EpisodeSampler(TABLE, n_way="all", n_shot=2, n_query=3, seed=0, stream="test")
    assert sampler.n_way == TABLE.n_classes == 14
    behind = check_tasks(sampler.draw(0, 50), TABLE, n_way=14, n_shot=2, n_query=3)
    assert all(sorted(row) == list(range(14)) for row in behind)
    assert len(set(map(tuple, behind))) == 50


def test_an_item_without_episodes_is_refused():
    with pytest.raises(UserError, match=r"^method\.sampler\.episodes=0: give a whole number of 1 or more"):
        EpisodeSampler(TABLE, n_way=2, n_shot=1, n_query=1, episodes=0, seed=0)


def counts_of(episodes: Episode, n_way: int) -> np.ndarray:
    """(E, N) queries of each class."""
    return np.array([np.bincount(row, minlength=n_way) for row in episodes.query_labels.numpy()])


LARGE = make_table({"Many": [90] * 12})


def test_trap_06_imbalanced_queries_are_shared_by_a_dirichlet_distribution() -> None:
    """Each class's count has the moments of the Dirichlet-multinomial; every episode has as many queries in all."""
    n_way, n_query, concentration = 10, 15, 2.0
    sampler = EpisodeSampler(LARGE, n_way=n_way, n_shot=2, n_query=n_query, imbalance=concentration, seed=0)
    episodes = sampler.draw(0, 2000)
    counts = counts_of(episodes, n_way)
    assert (counts.sum(axis=1) == n_way * n_query).all()
    total = n_way * n_query
    expected = stats.dirichlet_multinomial(np.full(n_way, concentration), total).cov()[0, 0]
    spread = counts.var(axis=0, ddof=1)
    assert abs(counts.mean(axis=0) - n_query).max() < 4 * np.sqrt(expected / 2000)
    assert abs(spread.mean() / expected - 1) < 0.1
    assert expected > 5 * total / n_way * (1 - 1 / n_way)  # far from what even chances would give
    assert counts.max() <= sampler.most_queries == 4 * n_query
    for task in range(50):
        support, query = episodes.support[task].tolist(), episodes.query[task].tolist()
        assert len(set(support + query)) == n_way * (2 + n_query)
        class_of = lookup(LARGE)
        number = {class_of[i]: label for i, label in zip(support, episodes.support_labels[task].tolist(), strict=True)}
        assert [number[class_of[i]] for i in query] == episodes.query_labels[task].tolist()


def test_small_classes_bound_the_imbalance() -> None:
    table = make_table({"Few": [14, 20, 30, 12]})
    sampler = EpisodeSampler(table, n_way=3, n_shot=2, n_query=5, imbalance=0.2, seed=0)
    counts = counts_of(sampler.draw(0, 300), 3)
    assert (counts.sum(axis=1) == 15).all()
    assert counts.max() == sampler.most_queries == 10
    pieces = [sampler.draw(0, 3), sampler.draw(3, 300)]
    assert torch.equal(torch.cat([piece.query for piece in pieces]), sampler.draw(0, 300).query)


def test_within_groups_the_classes_that_are_never_drawn_bound_nothing() -> None:
    table = make_table({"Large": [30] * 5, "Small": [6, 6]})
    sampler = EpisodeSampler(table, n_way=5, n_shot=1, n_query=5, within_group=True, imbalance=2.0, seed=0)
    assert sampler.most_queries == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imbalance": 0.0}, r"^method\.sampler\.imbalance=0.0: give a number above 0"),
        ({"imbalance": 2.0, "n_query": 6},
         r"^method\.sampler\.n_query=6: with imbalance=2.0 .*only 10 images besides.*method\.sampler\.n_query to 5 or"),
        ({"imbalance": 2.0, "n_shot": 11, "n_query": 1}, "add images to the class"),
    ],
)  # fmt: skip
def test_imbalance_without_spare_images_is_refused(options: dict, message: str) -> None:
    table = make_table({"Few": [14, 20, 30, 12]})
    with pytest.raises(UserError, match=message):
        EpisodeSampler(table, **{"n_way": 3, "n_shot": 2, "n_query": 5, "seed": 0, **options})
