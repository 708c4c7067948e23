"""Draws without replacement, against a shuffle of the whole population and against chance."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from slow_draws import slow_distinct

from fewshot_runner.data.draws import draw_distinct, nth_missing


@settings(max_examples=400)
@given(st.data())
def test_distinct_draws_equal_a_shuffle_of_the_whole_population(data):
    k = data.draw(st.integers(0, 8))
    population = data.draw(st.integers(max(k, 1), 40))
    below_one = st.floats(0, 1, exclude_max=True)
    uniform = data.draw(st.lists(below_one, min_size=k, max_size=k))
    drawn = draw_distinct(np.array([uniform]), np.array([population]))
    assert drawn.dtype == np.int64
    assert drawn.tolist() == [slow_distinct(uniform, population)]


def test_rows_have_populations_of_their_own():
    population = np.random.default_rng(1).integers(5, 60, size=(300, 4))
    uniform = np.random.default_rng(2).random((300, 4, 5))
    drawn = draw_distinct(uniform, population)
    for row in np.ndindex(300, 4):
        assert drawn[row].tolist() == draw_distinct(uniform[row][None], population[row][None])[0].tolist()
        assert len(set(drawn[row].tolist())) == 5
        assert 0 <= drawn[row].min() <= drawn[row].max() < population[row]


@pytest.mark.parametrize(("population", "k"), [(5, 1), (4, 4), (5, 3)])
def test_every_ordered_selection_is_equally_likely(population, k):
    rows = 60_000
    drawn = draw_distinct(np.random.default_rng(3).random((rows, k)), np.full(rows, population))
    counts = dict.fromkeys(permutations(range(population), k), 0)
    for selection in map(tuple, drawn.tolist()):
        counts[selection] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_the_largest_uniform_below_one_stays_inside_any_population():
    population = np.array([1, 2, 3, 964, 32_460, 2**31 + 1, 2**52 - 1])
    uniform = np.full((len(population), 1), np.nextafter(1.0, 0.0))
    assert draw_distinct(uniform, population)[:, 0].tolist() == (population - 1).tolist()


def test_the_population_costs_nothing():
    """A list of a million billion could not be held."""
    drawn = draw_distinct(np.random.default_rng(4).random((2, 6)), np.array([10**15, 10**15]))
    assert len(set(drawn.ravel().tolist())) == 12
    assert drawn.max() < 10**15


@given(st.sets(st.integers(0, 40)), st.lists(st.integers(0, 20)))
def test_absent_numbers_are_those_of_a_list_without_the_present(present, ranks):
    left = [number for number in range(100) if number not in present]
    found = nth_missing(np.array(ranks, dtype=np.int64), np.array([*present], dtype=np.int64))
    assert found.tolist() == [left[rank] for rank in ranks]
