"""Draws without replacement, for many rows at once.

Shapes: R rows, k draws.
"""

import math

import numpy as np


def draw_distinct(uniform: np.ndarray, population: np.ndarray) -> np.ndarray:
    """Ordered draws without replacement from 0..population-1, for many rows at once.

    uniform (..., k) numbers in [0, 1), population (...) with population >= k. Returns (..., k) int64 in which every
    ordered selection is equally likely. This is the Fisher-Yates shuffle, cut off after k exchanges, with a table of
    the positions that they touch instead of the whole population, so its cost does not depend on the population.
    """
    k = uniform.shape[-1]
    step = np.arange(k)
    target = step + (uniform * (population[..., None] - step)).astype(np.int64)  # (..., k): exchanged with `step`
    target = target.reshape(math.prod(uniform.shape[:-1]), k)  # (R, k)
    values = np.concatenate([np.broadcast_to(step, target.shape), target], axis=1)  # (R, 2 k): position p is value p
    # (R, k): the column of `values` that is a target's
    place = np.where(target < k, target, k + first_occurrence(target))
    place += 2 * k * np.arange(len(place))[:, None]  # in the flat table
    table = values.ravel()  # a view
    drawn = np.empty((k, len(target)), dtype=np.int64)
    for j, at in enumerate(np.ascontiguousarray(place.T)):
        drawn[j] = table[at]
        table[at] = values[:, j]
    return np.ascontiguousarray(drawn.T).reshape(uniform.shape)


def first_occurrence(values: np.ndarray) -> np.ndarray:
    """(R, k) to the same shape: the first column of its row in which each value stands."""
    order = values.argsort(axis=1, kind="stable")
    in_order = np.take_along_axis(values, order, axis=1)
    begins = np.ones(values.shape, dtype=bool)  # where a value differs from the one before
    begins[:, 1:] = in_order[:, 1:] != in_order[:, :-1]
    beginning = np.maximum.accumulate(np.where(begins, np.arange(values.shape[1]), 0), axis=1)
    first = np.empty_like(order)
    np.put_along_axis(first, order, np.take_along_axis(order, beginning, axis=1), axis=1)
    return first


def nth_missing(ranks: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The whole numbers from 0 on that are not among the different ones in `present`, by their `ranks`, smallest 0.

    The cost does not depend on how many there are.
    """
    present = np.sort(present)
    missing_below = present - np.arange(len(present))  # of each that is present
    return ranks + np.searchsorted(missing_below, ranks, side="right")
