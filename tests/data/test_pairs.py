"""Pairs that are judged: against all pairs of a table, listed in a loop, and a draw that goes pair by pair."""

from itertools import combinations

import numpy as np
import pytest
from class_tables import TABLE, lookup, make_table
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.pairs import Pairs
from fewshot_runner.data.samplers import PairSampler

SAME, NEAR, FAR = "one class", "one group", "two groups"


def kind_of(table: ClassTable, class_of: dict[int, int], pair: tuple[int, int]) -> str:
    one, other = (class_of[image] for image in pair)
    if one == other:
        return SAME
    return NEAR if table.class_groups[one] == table.class_groups[other] else FAR


def all_pairs(table: ClassTable) -> dict[str, set[frozenset[int]]]:
    class_of = lookup(table)
    listed: dict[str, set[frozenset[int]]] = {SAME: set(), NEAR: set(), FAR: set()}
    for pair in combinations(sorted(class_of), 2):
        listed[kind_of(table, class_of, pair)].add(frozenset(pair))
    return listed


def drawn(table: ClassTable, pairs: Pairs) -> dict[str, list[frozenset[int]]]:
    class_of = lookup(table)
    found: dict[str, list[frozenset[int]]] = {SAME: [], NEAR: [], FAR: []}
    for pair, same in zip(pairs.images.tolist(), pairs.same.tolist(), strict=True):
        kind = kind_of(table, class_of, pair)
        assert same == (kind == SAME)
        found[kind].append(frozenset(pair))
    return found


def expected_counts(n_pairs: int, same: int, near: int, far: int) -> tuple[int, int, int]:
    """The most evenly shared counts: grown pair by pair, one of one class and one of two, near and far in turn."""
    counts = [0, 0, 0]
    while 2 * counts[0] < n_pairs and counts[0] < same and counts[1] + counts[2] < near + far:
        counts[0] += 1
        counts[1 if counts[2] >= far or (counts[1] < near and counts[1] < counts[2]) else 2] += 1
    return tuple(counts)


@settings(max_examples=150)
@given(
    st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=3), st.integers(1, 120),
    st.integers(0, 3),
)  # fmt: skip
def test_no_pair_comes_twice_and_kinds_are_shared_as_far_as_there_are_pairs(groups, half, seed) -> None:
    groups[0] += [2, 1]  # a pair of one class, and one of two
    table = make_table({f"group{number}": sizes for number, sizes in enumerate(groups)})
    pairs = Pairs.draw(table, n_pairs=2 * half, seed=seed, stream="s")
    found, listed = drawn(table, pairs), all_pairs(table)
    for kind, of_kind in found.items():
        assert len(set(of_kind)) == len(of_kind), "a pair came twice"
        assert set(of_kind) <= listed[kind]
    counts = [len(of_kind) for of_kind in found.values()]
    expected = expected_counts(2 * half, *(len(of_kind) for of_kind in listed.values()))
    assert counts[0] == counts[1] + counts[2] == expected[0]
    assert abs(counts[1] - expected[1]) <= 1  # whoever has the odd one
    assert len(pairs) == sum(counts)
    again = Pairs.draw(table, n_pairs=2 * half, seed=seed, stream="s")
    assert np.array_equal(pairs.images, again.images)


@pytest.mark.parametrize(
    ("sizes", "same", "near", "far"),
    [
        ({"": [5, 5]}, 20, 20, 0),  # of 25 pairs of two classes
        ({"": [12, 1]}, 12, 12, 0),  # of 66 pairs of one class
        ({"a": [2, 1], "b": [3]}, 4, 2, 2),  # 1 + 3 of one class; 2 in a group, 9 across
        ({"a": [9], "b": [2, 2]}, 38, 4, 34),  # 36 + 1 + 1; 4 in a group, 36 across
    ],
)
def test_of_few_images_all_pairs_are_judged_that_can_be_shared_out(sizes, same, near, far) -> None:
    table = make_table(sizes)
    found = drawn(table, Pairs.draw(table, n_pairs=10_000, seed=0, stream="s"))
    assert [len(set(of_kind)) for of_kind in found.values()] == [same, near, far]
    assert [len(of_kind) for of_kind in found.values()] == [same, near, far]


@pytest.mark.parametrize(("sizes", "n_pairs"), [({"a": [12] * 4, "b": [15] * 3}, 60), ({"": [20] * 6}, 200)])
def test_pairs_stay_those_of_the_sampler_but_for_its_repeats(sizes, n_pairs) -> None:
    """Drawn one by one: a pair that came before waits at its place for the next new one of its kind."""
    table = make_table(sizes)
    class_of = lookup(table)
    n_repeats = 0
    for seed in range(12):
        sampler = PairSampler(table, n_pairs=n_pairs, seed=seed, stream="s")
        items = [sampler[k].images[sampler[k].pairs].tolist() for k in range(4)]
        expected, seen = [], set()
        for pair in items[0]:
            expected.append(None if frozenset(pair) in seen else pair)
            seen.add(frozenset(pair))
        kinds = [kind_of(table, class_of, pair) for pair in items[0]]
        for pair in (pair for item in items[1:] for pair in item):
            places = [p for p, kind in enumerate(kinds) if kind == kind_of(table, class_of, pair)]
            free = [p for p in places if expected[p] is None]
            if free and frozenset(pair) not in seen:
                expected[free[0]] = pair
                seen.add(frozenset(pair))
                n_repeats += 1
        assert Pairs.draw(table, n_pairs=n_pairs, seed=seed, stream="s").images.tolist() == expected
    assert n_repeats > 12


def test_of_hardly_more_pairs_than_are_wanted_each_is_equally_likely() -> None:
    table = make_table({"": [3, 5]})
    counts = dict.fromkeys(all_pairs(table)[SAME], 0)
    for seed in range(1500):
        for pair in drawn(table, Pairs.draw(table, n_pairs=8, seed=seed, stream="s"))[SAME]:
            counts[pair] += 1
    assert sum(counts.values()) == 6000
    assert len(counts) == 3 + 10
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_seeds_and_streams_draw_other_pairs() -> None:
    one = Pairs.draw(TABLE, n_pairs=40, seed=0, stream="s").images
    assert not np.array_equal(one, Pairs.draw(TABLE, n_pairs=40, seed=1, stream="s").images)
    assert not np.array_equal(one, Pairs.draw(TABLE, n_pairs=40, seed=0, stream="t").images)


def test_of_many_images_the_pairs_are_never_listed() -> None:
    """2 x 10^5 images make 2 x 10^10 pairs, which would fill any memory."""
    labels = np.arange(200_000) // 2
    names = [f"class{c:06d}" for c in range(100_000)]
    table = ClassTable.build(labels, names, [""] * 100_000, np.arange(200_000))
    pairs = Pairs.draw(table, n_pairs=1000, seed=0, stream="s")
    assert len(pairs) == 1000
    assert ((pairs.images[:, 0] // 2 == pairs.images[:, 1] // 2) == pairs.same).all()
