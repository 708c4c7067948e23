"""Pairs, same or different: against loops over thresholds, and scipy's Mann-Whitney statistic."""

import json

import numpy as np
import pytest
import torch
from class_tables import make_table
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from torch import Tensor

from fewshot_runner.engine import answers
from fewshot_runner.engine.answers import compare_pairs, go_on
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.evaluate import evaluate
from fewshot_runner.engine.protocols.verification import Verification, area_under_curve, best_threshold
from fewshot_runner.errors import UserError
from fewshot_runner.methods.base import EmbeddingMethod, Method


class Shade(EmbeddingMethod):
    """Similar is what is equally bright."""

    def loss(self, batch: object) -> Tensor:
        raise NotImplementedError

    def embed(self, images: Tensor) -> Tensor:
        return images.flatten(1).mean(1, keepdim=True)

    def score(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        return -torch.cdist(query, support, p=1)  # one shot, class n is the n-th


def verification(world, *, part: str = "test", pairs: int = 200, **options) -> Verification:
    return Verification(
        world.table(part), world.viewer, fitted_on=world.table("val"), pairs=pairs, seed=0,
        part=part, **options,
    )  # fmt: skip


def by_hand(world, pairs) -> tuple[list[float], list[bool]]:
    shade = (world.pixels.double() / 255).mean((1, 2, 3)).tolist()
    images = pairs.images.tolist()
    return [-abs(shade[a] - shade[b]) for a, b in images], [a // 8 == b // 8 for a, b in images]


def right_at(threshold: float, similarities: list[float], same: list[bool]) -> list[float]:
    return [float((s > threshold) == t) for s, t in zip(similarities, same, strict=True)]


def test_the_threshold_is_that_of_validation_though_another_were_better(world, hardware: Hardware) -> None:
    """Test images are darkened, so that pairs of them are more alike and a stricter threshold would be better."""
    world.pixels[18 * 8 :] //= 8
    protocol = verification(world)
    evaluation = evaluate(Shade(), protocol, hardware=hardware)
    fitted = best_threshold(*map(np.array, by_hand(world, protocol.fitting)))
    similarities, same = by_hand(world, protocol.pairs)
    assert evaluation.further["threshold"] == pytest.approx(fitted, abs=1e-6)
    assert evaluation.values.mean() == pytest.approx(np.mean(right_at(fitted, similarities, same)), abs=1e-9)
    best = best_threshold(np.array(similarities), np.array(same))
    assert np.mean(right_at(best, similarities, same)) > evaluation.values.mean() + 0.02
    assert set(protocol.fitting.images.ravel().tolist()) <= set(world.table("val").members.tolist())
    assert set(protocol.pairs.images.ravel().tolist()) <= set(world.table("test").members.tolist())


def test_figures_by_hand(world, hardware: Hardware) -> None:
    protocol = verification(world)
    evaluation = evaluate(Shade(), protocol, hardware=hardware)
    similarities, same = by_hand(world, protocol.pairs)
    alike = [s for s, t in zip(similarities, same, strict=True) if t]
    unlike = [s for s, t in zip(similarities, same, strict=True) if not t]
    assert len(alike) == len(unlike) == 100
    area = np.mean([(a > b) + (a == b) / 2 for a in alike for b in unlike])
    assert evaluation.further["auc"] == pytest.approx(area, abs=1e-4)
    assert evaluation.values.tolist() == right_at(evaluation.further["threshold"], similarities, same)
    assert evaluation.unit == "pairs"
    assert (evaluation.metric, len(evaluation.values)) == ("accuracy", 200)
    assert set(evaluation.means()) >= set(protocol.figures)
    assert evaluation.protocol == {"protocol": "verification", "part": "test", "pairs": 200, "episode_seed": 0,
                                   "mode": "inductive", "bn_mode": "running"}  # fmt: skip


@pytest.mark.parametrize("share", [1, 3])
def test_what_is_no_number_is_right_of_no_pair(world, hardware: Hardware, share: int) -> None:
    class Lost(Shade):
        def score(self, *features):
            similarities = super().score(*features)
            similarities[::share] = torch.nan
            return similarities

    protocol = verification(world)
    evaluation, whole = (evaluate(method, protocol, hardware=hardware) for method in (Lost(), Shade()))
    assert evaluation.values[::share].tolist() == [0.0] * len(evaluation.values[::share])
    assert (evaluation.values.mean() > 0) == (share > 1)
    assert evaluation.further["auc"] < whole.further["auc"] - 0.2
    json.dumps(evaluation.further, allow_nan=False)  # as it is written down


SIMILARITIES = st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 3.0]), st.booleans()), min_size=1, max_size=12)


@settings(max_examples=300)
@given(SIMILARITIES)
def test_no_threshold_is_right_more_often(pairs) -> None:
    similarities, same = map(np.array, zip(*pairs, strict=True))
    threshold = best_threshold(similarities, same)
    tried = [-2.0, -0.5, 0.1, 0.3, 1.0, 4.0]  # one in each gap between the values that occur
    best = max(np.mean(right_at(t, similarities, same)) for t in tried)
    assert np.mean(right_at(threshold, similarities, same)) == best
    lowest = next(t for t in tried if np.mean(right_at(t, similarities, same)) == best)
    assert right_at(lowest, similarities, same) == right_at(threshold, similarities, same)


def test_a_threshold_lies_midway() -> None:
    assert best_threshold(np.array([0.0, 1.0, 2.0, 4.0]), np.array([False, False, True, True])) == 1.5
    assert best_threshold(np.array([1.0, 2.0]), np.array([True, True])) < 1.0
    assert best_threshold(np.array([1.0, 2.0]), np.array([False, False])) >= 2.0
    assert best_threshold(np.array([0.0, 1.0, 2.0]), np.array([True, False, True])) < 0.0  # as good as 1.5: the lowest


def test_the_area_is_mann_and_whitneys_ties_included() -> None:
    random = np.random.default_rng(0)
    for places in (1, 2, 5, 1000):
        similarities, same = random.integers(places, size=80).astype(float), random.random(80) < 0.4
        statistic = mannwhitneyu(similarities[same], similarities[~same]).statistic
        expected = statistic / (same.sum() * (~same).sum())
        assert area_under_curve(similarities, same) == pytest.approx(expected, rel=1e-12)
    assert area_under_curve(np.zeros(4), np.array([True, False, True, False])) == 0.5
    assert area_under_curve(np.array([2.0, 1.0]), np.array([True, False])) == 1.0


@pytest.mark.parametrize("at_once", [1, 3, 1024])
def test_pairs_are_compared_in_their_order(world, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    for limit in ("IMAGES_AT_ONCE", "PAIRS_AT_ONCE"):
        monkeypatch.setattr(answers, limit, at_once)
    first, second = torch.tensor([5, 100, 3, 5, 17]), torch.tensor([6, 3, 100, 5, 0])
    shade = (world.pixels / 255).mean((1, 2, 3))
    got = compare_pairs(Shade(), world.viewer, first, second, go_on)
    torch.testing.assert_close(got, -(shade[first] - shade[second]).abs())


def test_what_cannot_compare_two_images_is_refused(world) -> None:
    class Fits(Shade):
        compares_pairs = False

    class Adapts(Method):
        def loss(self, batch: object) -> Tensor:
            raise NotImplementedError

        def classify(self, episode: object) -> Tensor:
            raise NotImplementedError

    for method in (Fits(), Adapts()):
        with pytest.raises(UserError, match=f"eval.protocol=verification: {type(method).__name__} does not compare"):
            Verification.check(method)
    Verification.check(Shade())
    with pytest.raises(UserError, match=r"eval\.bn_mode=support"):
        verification(world, bn_mode="support")


@pytest.mark.parametrize("part", ["table", "fitted_on"])
@pytest.mark.parametrize(("sizes", "message"), [([1, 1], "a class of 2 images or more"), ([3], "at least 2 classes")])
def test_classes_that_make_no_pairs_are_refused_by_their_counts(part, sizes, message) -> None:
    tables = {"table": make_table({"": [2, 2]}), "fitted_on": make_table({"": [2, 2]})}
    Verification.check_classes(**tables)
    with pytest.raises(UserError, match=message):
        Verification.check_classes(**{**tables, part: make_table({"": sizes})})


def test_validation_compares_its_pairs_once(world, hardware: Hardware) -> None:
    seen: list[int] = []

    class Counting(Shade):
        def embed(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            return super().embed(images)

    protocol = verification(world, part="val")
    evaluation = evaluate(Counting(), protocol, hardware=hardware)
    assert sum(seen) == len(np.unique(protocol.pairs.images))
    similarities, same = by_hand(world, protocol.fitting)
    assert evaluation.values.mean() == pytest.approx(
        np.mean(right_at(evaluation.further["threshold"], similarities, same))
    )


def test_on_few_images_the_interval_is_that_of_the_pairs_that_there_are(world, hardware: Hardware) -> None:
    """Six classes of eight images make 6 x 28 pairs of one class, however many are asked for."""
    evaluation = evaluate(Shade(), verification(world, pairs=10_000), hardware=hardware)
    assert evaluation.protocol["pairs"] == len(evaluation.values) == 2 * 6 * 28
    p = evaluation.values.mean()
    assert evaluation.ci95 == pytest.approx(1.96 * np.sqrt(p * (1 - p) / 336), rel=0.02)
