"""Samplers of pairs, of P x K batches and of plain batches, against counts."""

from itertools import permutations

import numpy as np
import pytest
import torch
from class_tables import CLASS_OF, TABLE, make_table
from scipy import stats

from fewshot_runner.data.samplers import (
    BatchSampler,
    PairSampler,
    PKSampler,
)
from fewshot_runner.errors import UserError
from fewshot_runner.randomness import numpy_generator


@pytest.mark.parametrize(("share", "in_group"), [(0.5, 8), (0.0, 0), (1.0, 16), (0.25, 4)])
def test_trap_03_positives_are_two_images_and_negatives_two_classes(share, in_group):
    sampler = PairSampler(TABLE, n_pairs=32, negatives_in_group=share, seed=0)
    for k in range(400):
        batch = sampler[k]
        assert batch.pairs.shape == (32, 2)
        assert sorted(batch.pairs.ravel().tolist()) == list(range(64))
        images = batch.images[batch.pairs].tolist()
        classes = [(CLASS_OF[one], CLASS_OF[other]) for one, other in images]
        assert batch.labels[batch.pairs].tolist() == [list(pair) for pair in classes]
        positives = [pair for pair, (one, other) in zip(images, classes, strict=True) if one == other]
        assert len(positives) == 16
        assert all(one != other for one, other in positives)
        groups = [TABLE.class_groups[list(pair)] for pair in classes if pair[0] != pair[1]]
        assert sum(one == other for one, other in groups) == in_group


def test_pairs_are_drawn_evenly_over_classes_and_partners():
    table = make_table({"a": [3, 3, 3], "b": [3, 3], "c": [3]})
    sampler = PairSampler(table, n_pairs=6000, negatives_in_group=0.5, seed=0)
    batch = sampler[0]
    pairs = batch.labels[batch.pairs]
    same_class = pairs[:, 0] == pairs[:, 1]
    assert stats.chisquare(np.bincount(pairs[same_class, 0], minlength=6)).pvalue > 1e-4
    group = torch.from_numpy(table.class_groups)
    inside = ~same_class & (group[pairs[:, 0]] == group[pairs[:, 1]])
    # within a group: the first class evenly over the five that have a neighbour, the second evenly over these
    chance = dict.fromkeys(permutations(range(3), 2), 1 / 5 / 2) | {(3, 4): 1 / 5, (4, 3): 1 / 5}
    counts = dict.fromkeys(chance, 0)
    for pair in map(tuple, pairs[inside].tolist()):
        counts[pair] += 1
    expected = [1500 * chance[pair] for pair in counts]
    assert stats.chisquare(list(counts.values()), expected).pvalue > 1e-4
    # across groups: the first class evenly over all six, the second evenly over those outside its group
    chance = {
        (one, other): 1 / 6 / int((group != group[one]).sum())
        for one in range(6)
        for other in range(6)
        if group[one] != group[other]
    }
    counts = dict.fromkeys(chance, 0)
    for pair in map(tuple, pairs[~same_class & ~inside].tolist()):
        counts[pair] += 1
    assert stats.chisquare(list(counts.values()), [1500 * chance[pair] for pair in counts]).pvalue > 1e-4


@pytest.mark.parametrize(("sizes", "share"), [({"": [2, 2, 2, 2]}, 0.3), ({"a": [2, 2, 2], "b": [2]}, None)])
def test_without_groups_or_a_share_all_pairs_of_classes_are_equally_likely(sizes, share):
    batch = PairSampler(make_table(sizes), n_pairs=8000, negatives_in_group=share, seed=0)[0]
    pairs = batch.labels[batch.pairs]
    counts = dict.fromkeys(permutations(range(4), 2), 0)
    for pair in map(tuple, pairs[pairs[:, 0] != pairs[:, 1]].tolist()):
        counts[pair] += 1
    assert sum(counts.values()) == 4000
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_groups_of_one_class_give_negatives_across_groups_alone():
    table = make_table({"a": [2], "b": [2], "c": [1]})
    sampler = PairSampler(table, n_pairs=20, seed=0)
    for k in range(50):
        pairs = sampler[k].labels[sampler[k].pairs]
        assert (pairs[:10, 0] == pairs[:10, 1]).all()
        assert (pairs[:10] < 2).all(), "a class of one image has no pair"
        assert (pairs[10:, 0] != pairs[10:, 1]).all()


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ([2, 2], {"n_pairs": 3}, r"^method\.sampler\.n_pairs=3: give an even number of 2 or more"),
        ([2, 2], {"n_pairs": 0}, r"^method\.sampler\.n_pairs=0: give an even number"),
        ([2, 2], {"n_pairs": 2, "negatives_in_group": 1.5},
         r"^method\.sampler\.negatives_in_group=1.5: give a share between 0 and 1"),
        ([2], {"n_pairs": 2}, "at least 2 classes, and there is only 1"),
        ([1, 1], {"n_pairs": 2}, "need a class of 2 images or more"),
    ],
)  # fmt: skip
def test_impossible_pairs_are_refused(sizes, options, message):
    with pytest.raises(UserError, match=message):
        PairSampler(make_table({"": sizes}), **options, seed=0)


@pytest.mark.parametrize("n_groups", [0, 1, 2, 9])
def test_p_different_classes_give_k_different_images_each(n_groups):
    sampler = PKSampler(TABLE, n_classes=8, n_images=9, n_groups=n_groups, seed=0)
    for k in range(200):
        batch = sampler[k]
        assert len(set(batch.images.tolist())) == len(batch.images) == 72
        labels, counts = batch.labels.unique(return_counts=True)
        assert len(labels) == 8
        assert counts.tolist() == [9] * 8


@pytest.mark.parametrize(
    ("n_classes", "n_groups", "shares"),
    [(24, 3, [8, 8, 8]), (10, 3, [3, 3, 4]), (2, 5, [1, 1]), (10, 1, [10]), (36, 8, [4, 4, 4, 4, 5, 5, 5, 5])],
)
def test_classes_come_from_few_groups_equally_many_of_each(n_classes, n_groups, shares):
    table = make_table({f"group{number}": [3] * 10 for number in range(40)})
    sampler = PKSampler(table, n_classes=n_classes, n_images=2, n_groups=n_groups, seed=0)
    seen = set()
    for k in range(200):
        of_group = np.bincount(table.class_groups[sampler[k].labels.unique()], minlength=40)
        assert sorted(of_group[of_group > 0]) == shares
        seen |= set(np.flatnonzero(of_group))
    assert seen == set(range(40))


def test_groups_that_are_too_small_are_filled_up_from_others():
    table = make_table({f"group{number}": [3] * 2 for number in range(10)})
    sampler = PKSampler(table, n_classes=8, n_images=2, n_groups=2, seed=0)
    for k in range(100):
        classes = sampler[k].labels.unique()
        assert len(classes) == 8
        assert (np.bincount(table.class_groups[classes]) == 2).sum() >= 2, "two groups in full"


def test_small_classes_give_all_they_have():
    table = make_table({"a": [1, 2], "b": [5, 5], "c": [7, 3]})
    sampler = PKSampler(table, n_classes=6, n_images=4, n_groups=1, seed=0)
    for k in range(50):
        batch = sampler[k]
        assert np.bincount(batch.labels).tolist() == [1, 2, 4, 4, 4, 3]
        assert len(set(batch.images.tolist())) == 18


def chance_of(counts: np.ndarray, *, drawn: int, times: int) -> float:
    """The chance of counts at least as uneven where `drawn` of them grow by one, evenly, each of `times` times."""
    expected = times * drawn / len(counts)
    statistic = ((counts - expected) ** 2 / expected).sum() * (len(counts) - 1) / (len(counts) - drawn)
    return stats.chi2.sf(statistic, len(counts) - 1)


def test_all_classes_are_equally_likely_without_groups():
    sampler = PKSampler(TABLE, n_classes=4, n_images=2, seed=0)
    counts = sum(np.bincount(sampler[k].labels.unique(), minlength=14) for k in range(3000))
    assert chance_of(counts, drawn=4, times=3000) > 1e-4


def test_with_groups_every_group_class_and_image_has_its_turn_evenly():
    table = make_table({name: [6] * 5 for name in "abcd"})
    sampler = PKSampler(table, n_classes=4, n_images=2, n_groups=2, seed=0)
    batches = [sampler[k] for k in range(4000)]
    of_image = np.bincount(torch.cat([batch.images for batch in batches]), minlength=120)
    of_class = np.array([of_image[table.members[6 * c : 6 * c + 6]].sum() // 2 for c in range(20)])
    of_group = of_class.reshape(4, 5).sum(axis=1) // 2
    assert chance_of(of_group, drawn=2, times=4000) > 1e-4
    for group, times in enumerate(of_group):
        assert chance_of(of_class[5 * group : 5 * group + 5], drawn=2, times=times) > 1e-4
    for c, times in enumerate(of_class):
        assert chance_of(of_image[table.members[6 * c : 6 * c + 6]], drawn=2, times=times) > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_classes": 15, "n_images": 2}, "n_classes=15: there are only 14 training classes"),
        ({"n_classes": 1, "n_images": 2}, "needs 2 classes or more"),
        ({"n_classes": 2, "n_images": 1}, "n_images=1.*2 images or more"),
        ({"n_classes": 2, "n_images": 2, "n_groups": -1}, "n_groups=-1.*0 groups or more"),
    ],
)
def test_impossible_batches_of_classes_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        PKSampler(TABLE, **options, seed=0)


def test_classes_of_one_image_each_are_refused():
    """Every loss on such batches would be 0, without a word. One class of two images is enough."""
    with pytest.raises(UserError, match=r"same-class pairs need a class of 2 images or more, .* add images"):
        PKSampler(make_table({"a": [1, 1], "b": [1]}), n_classes=2, n_images=2, seed=0)
    PKSampler(make_table({"a": [1, 1], "b": [2]}), n_classes=2, n_images=2, seed=0)


@pytest.mark.parametrize("batch_size", [1, 8, 50, 1000])
def test_every_image_comes_once_an_epoch_in_another_order_each(batch_size):
    table = make_table({"a": [5, 6], "b": [39]})
    sampler = BatchSampler(table, batch_size=batch_size, seed=0)
    n_batches = {1: 50, 8: 7, 50: 1, 1000: 1}[batch_size]
    epochs = []
    for epoch in range(3):
        batches = [sampler[k] for k in range(epoch * n_batches, (epoch + 1) * n_batches)]
        assert [len(batch.images) for batch in batches][:-1] == [batch_size] * (n_batches - 1)
        epochs.append([image for batch in batches for image in batch.images.tolist()])
        assert sorted(epochs[-1]) == list(range(50))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert sorted(epochs[0]) != epochs[0]


@pytest.mark.parametrize(
    ("n_images", "batch_size", "sizes"),
    [(9, 4, [4, 5]), (9, 8, [9]), (10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 2, [3]), (2, 1, [1, 1]), (1, 4, [1])],
)
def test_a_single_image_left_over_joins_the_batch_before_it(n_images, batch_size, sizes):
    """Batch norm on maps of one value cannot train on it."""
    table = make_table({"": [n_images]})
    sampler = BatchSampler(table, batch_size=batch_size, seed=0)
    for epoch in range(3):
        batches = [sampler[epoch * len(sizes) + number] for number in range(len(sizes))]
        assert [len(batch.images) for batch in batches] == sizes
        images = torch.cat([batch.images for batch in batches])
        assert sorted(images.tolist()) == list(range(n_images))
        assert torch.cat([batch.labels for batch in batches]).tolist() == [0] * n_images


@pytest.mark.parametrize(("n_images", "batch_size"), [(51, 7), (50, 8), (50, 1), (50, 50), (50, 64), (49, 10)])
def test_pinned_batches_are_slices_of_the_permutation_that_seed_stream_and_epoch_draw(n_images, batch_size):
    """The sampler's own formula: which order a seed means may not change, or a resumed run would repeat images."""
    sampler = BatchSampler(make_table({"": [n_images]}), batch_size=batch_size, seed=3)
    for epoch in range(2):
        order = numpy_generator(3, "train", epoch).permutation(n_images).tolist()
        slices = [order[at : at + batch_size] for at in range(0, n_images, batch_size)]
        batches = [sampler[epoch * len(slices) + number] for number in range(len(slices))]
        assert [batch.images.tolist() for batch in batches] == slices


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(UserError, match="batch_size=0: give a whole number of 1 or more"):
        BatchSampler(TABLE, batch_size=0, seed=0)
