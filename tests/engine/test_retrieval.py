"""Identification: against sorted lists of names, one probe at a time.

Shapes: P probes, I identities.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.engine.answers import go_on
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.evaluate import evaluate
from fewshot_runner.engine.protocols import retrieval as module
from fewshot_runner.engine.protocols.retrieval import (
    Retrieval,
    Search,
    best_unknown,
    identity_similarities,
    right_ranks,
    top_answers,
)
from fewshot_runner.errors import UserError
from fewshot_runner.methods.base import EmbeddingMethod

NAMES = [f"class{c:02d}" for c in range(24)]
GROUPS = [f"group{c // 3}" for c in range(24)]
UNKNOWN = "class23"
GALLERY_IMAGES = {c: 1 + c % 4 for c in range(15)}  # the first images of each; every fourth identity has but one


class Shade(EmbeddingMethod):
    """Similar is what is equally bright; a class is as similar as its most similar image."""

    def loss(self, batch: object) -> Tensor:
        raise NotImplementedError

    def embed(self, images: Tensor) -> Tensor:
        return (images.flatten(1).double() * 255).round().sum(1, keepdim=True)  # whole numbers: no rounding

    def score(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        of_class = torch.nn.functional.one_hot(support_labels, n_way).bool()  # (E, S, N)
        distances = torch.cdist(query, support, p=1)  # (E, Q, S)
        return -distances[..., None].masked_fill(~of_class[:, None], torch.inf).amin(2)


def table(world, chosen) -> ClassTable:
    return ClassTable.build(world.labels, NAMES, GROUPS, np.array(sorted(chosen)))


def searches(world) -> tuple[Search, Search]:
    """Test and validation: images 4, 5 and 6, 7 of some identities, and unknown ones."""
    gallery = table(world, [8 * c + k for c, count in GALLERY_IMAGES.items() for k in range(count)])
    of_test = table(world, [8 * c + k for c in [*range(0, 15, 2), 23] for k in (4, 5)])
    of_val = table(world, [8 * c + k for c in [*range(1, 15, 3), 23] for k in (6, 7)])
    return tuple(Search.build(gallery, probes, unknown=UNKNOWN) for probes in (of_test, of_val))


def retrieval(world, *, unknown: str | None = UNKNOWN, **options) -> Retrieval:
    search, fitted_on = searches(world)
    image_names = np.array([f"image{i:03d}" for i in range(len(world.labels))])
    return Retrieval(search, world.viewer, fitted_on=fitted_on, asked=search, image_names=image_names, unknown=unknown,
                     part="test", **options)  # fmt: skip


def ranking(world, image: int, threshold: float | None) -> list[tuple[float, str]]:
    """(similarity, name) from best to worst: each identity by its most similar image, and the unknown label."""
    shade = world.pixels.long().sum((1, 2, 3)).tolist()
    best = {
        NAMES[c]: max(-abs(shade[image] - shade[8 * c + k]) for k in range(count))
        for c, count in GALLERY_IMAGES.items()
    }
    if threshold is not None:
        best[UNKNOWN] = threshold
    return sorted(((similarity, name) for name, similarity in best.items()), key=lambda pair: -pair[0])


def average_precision(world, image: int, threshold: float) -> float:
    ranked = ranking(world, image, threshold)
    [right] = [similarity for similarity, name in ranked if name == NAMES[image // 8]]
    rank = sum(similarity >= right for similarity, _ in ranked)
    return 1 / rank if rank <= 5 else 0.0


def test_figures_by_sorted_lists(world, hardware: Hardware) -> None:
    protocol = retrieval(world)
    evaluation = evaluate(Shade(), protocol, hardware=hardware)
    threshold = evaluation.further["threshold"]
    expected = [average_precision(world, image, threshold) for image in protocol.search.probes.tolist()]
    assert len(set(expected)) > 2
    np.testing.assert_allclose(evaluation.values, expected)
    np.testing.assert_allclose(evaluation.figures["recall_at_1"], [float(value == 1) for value in expected])
    np.testing.assert_allclose(evaluation.figures["recall_at_5"], [float(value > 0) for value in expected])
    assert (evaluation.metric, evaluation.unit, tuple(evaluation.figures)) == ("map_at_5", "probes", protocol.figures)


def test_the_unknown_labels_place_is_the_best_of_validation_and_not_of_test(world, hardware: Hardware) -> None:
    """Unknown images are white in validation, like nothing in the gallery, and copies of its images in test."""
    protocol = retrieval(world)
    world.pixels[[8 * 23 + 6, 8 * 23 + 7]] = 255
    world.pixels[[8 * 23 + 4, 8 * 23 + 5]] = world.pixels[[8, 9]]
    threshold = evaluate(Shade(), protocol, hardware=hardware).further["threshold"]

    def mean(probes: np.ndarray, place: float) -> float:
        return float(np.mean([average_precision(world, image, place) for image in probes.tolist()]))

    places = [0.5, *(-(place**2) - 0.5 for place in range(0, 90, 2))]
    assert mean(protocol.fitted_on.probes, threshold) >= max(mean(protocol.fitted_on.probes, p) for p in places) - 1e-9
    assert mean(protocol.search.probes, threshold) < max(mean(protocol.search.probes, p) for p in places) - 0.01
    world.pixels[protocol.search.probes] = 128  # other test images, the same threshold
    assert evaluate(Shade(), protocol, hardware=hardware).further["threshold"] == threshold


def test_answers_are_those_of_a_sorted_list(world, hardware: Hardware) -> None:
    evaluation = evaluate(Shade(), retrieval(world), hardware=hardware)
    threshold = evaluation.further["threshold"]
    assert len(evaluation.answers) == 18
    for name, answers in evaluation.answers.items():
        assert answers == [name for _, name in ranking(world, int(name.removeprefix("image")), threshold)][:5]
        assert len(set(answers)) == 5
    assert any(UNKNOWN in answers for answers in evaluation.answers.values())


def test_answers_are_in_the_order_of_the_images_and_tell_nothing_of_their_labels(world, hardware: Hardware) -> None:
    protocol = retrieval(world)
    generator = np.random.default_rng(0)
    shuffled = generator.permutation(len(protocol.asked.probes))
    asked = Search(protocol.asked.gallery, protocol.asked.probes[shuffled], protocol.asked.labels[shuffled])
    in_order = evaluate(Shade(), protocol, hardware=hardware).answers
    protocol.asked = asked
    answers = evaluate(Shade(), protocol, hardware=hardware).answers
    assert list(answers.items()) == list(in_order.items())
    numbers = [int(name.removeprefix("image")) for name in answers]
    assert numbers == sorted(numbers)


def test_without_an_unknown_label_there_is_no_threshold(world, hardware: Hardware) -> None:
    gallery = table(world, [8 * c for c in range(6)])
    search = Search.build(gallery, table(world, [8 * c + 4 for c in range(6)]), unknown=None)
    protocol = Retrieval(search, world.viewer, fitted_on=search, asked=search, image_names=np.arange(192).astype(str),
                         unknown=None, part="test")  # fmt: skip
    evaluation = evaluate(Shade(), protocol, hardware=hardware)
    assert evaluation.further == {}
    assert all(len(set(answers)) == 5 for answers in evaluation.answers.values())


def slow_average(similarities: np.ndarray, labels: np.ndarray, place: float) -> float:
    """What is as similar as the right answer stands before it."""
    total = 0.0
    for row, label in zip(similarities.tolist(), labels.tolist(), strict=True):
        others = [*row[:label], *row[label + 1 :], place] if label >= 0 else row
        right = row[label] if label >= 0 else place
        rank = 1 + sum(other >= right for other in others)
        total += 1 / rank if rank <= 5 else 0
    return total / len(labels)


@settings(max_examples=300)
@given(st.data())
def test_no_place_of_the_unknown_label_is_better(data) -> None:
    n_probes, n_identities = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 8))
    values = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0])  # few, so that there are ties
    row = st.lists(values, min_size=n_identities, max_size=n_identities)
    similarities = np.array(data.draw(st.lists(row, min_size=n_probes, max_size=n_probes)))
    labels = data.draw(st.lists(st.integers(-1, n_identities - 1), min_size=n_probes, max_size=n_probes))
    labels = np.array(labels)
    place = best_unknown(similarities, labels)
    tried = [-1.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 4.0]
    averages = [slow_average(similarities, labels, t) for t in tried]
    assert slow_average(similarities, labels, place) == pytest.approx(max(averages), abs=1e-12)
    ranks = right_ranks(similarities, labels, place)
    figure = np.where(ranks <= 5, 1 / ranks, 0).mean()
    assert figure == pytest.approx(slow_average(similarities, labels, place), abs=1e-12)


def test_equal_similarities_stand_before_the_right_answer() -> None:
    similarities = np.array([[0.5, 0.5, 0.5, 0.1], [0.5, 0.5, 0.5, 0.1], [0.1, 0.2, 0.3, 0.4]])
    assert right_ranks(similarities, np.array([0, 3, 3]), None).tolist() == [3, 4, 1]
    assert right_ranks(similarities, np.array([0, -1, -1]), 0.5).tolist() == [4, 4, 1]
    assert right_ranks(np.zeros((1, 9)), np.array([4]), None).tolist() == [9]  # a constant network finds nothing


@pytest.mark.parametrize("unknown", [UNKNOWN, None])
@pytest.mark.parametrize("lost", [range(15), range(0, 15, 2)], ids=["all", "every other identity"])
def test_what_is_no_number_is_not_found(world, hardware: Hardware, lost: range, unknown: str | None) -> None:
    class Lost(Shade):
        def score(self, *features):
            similarities = super().score(*features)
            of_lost = torch.tensor([c in lost for c, count in GALLERY_IMAGES.items() for _ in range(count)])
            return similarities.masked_fill(of_lost, torch.nan)

    protocol = retrieval(world, unknown=unknown)
    protocol.search = protocol.asked = replace(protocol.search, labels=protocol.search.labels.clip(min=0))
    evaluation = evaluate(Lost(), protocol, hardware=hardware)
    right = [c in lost for c in protocol.search.labels]
    assert evaluation.values[right].tolist() == [0.0] * sum(right) != []
    assert np.isfinite(evaluation.values).all()
    json.dumps(evaluation.further, allow_nan=False)  # as it is written down


def test_the_unknown_label_stands_where_its_similarity_puts_it() -> None:
    similarities = np.array([[0.9, 0.1, 0.5, 0.7, 0.3, 0.2]])
    names = list("abcdef")
    for place, expected in ((1.0, "?adce"), (0.6, "ad?ce"), (0.25, "adce?"), (0.0, "adcef")):
        [answers] = top_answers(similarities, names, unknown="?", threshold=place)
        assert "".join(answers) == expected
    assert top_answers(similarities, names, unknown=None, threshold=None) == [list("adcef")]
    assert top_answers(similarities[:, :3], names[:3], unknown="?", threshold=0.2) == [list("ac?b")]


@pytest.mark.parametrize(("gallery_at_once", "probes_at_once"), [(1, 1), (4, 5), (7, 1000)])
def test_chunks_change_nothing(
    world, monkeypatch: pytest.MonkeyPatch, gallery_at_once: int, probes_at_once: int
) -> None:
    search, _ = searches(world)
    gallery, probes = (
        Shade().embed(world.viewer(torch.from_numpy(s))) for s in (search.gallery.members, search.probes)
    )
    arguments = (Shade(), gallery, probes, search.gallery.offsets[:-1], go_on)
    with torch.no_grad():
        whole = identity_similarities(*arguments)
        monkeypatch.setattr(module, "GALLERY_AT_ONCE", gallery_at_once)
        monkeypatch.setattr(module, "PROBES_AT_ONCE", probes_at_once)
        np.testing.assert_array_equal(identity_similarities(*arguments), whole)
    for row, image in zip(whole, search.probes.tolist(), strict=True):
        by_name = {name: similarity for similarity, name in ranking(world, image, None)}
        np.testing.assert_allclose(row, [by_name[name] for name in search.gallery.names], atol=1e-6)


def test_labels_number_the_gallery(world) -> None:
    search, _ = searches(world)
    for image, label in zip(search.probes.tolist(), search.labels.tolist(), strict=True):
        expected = NAMES[image // 8]
        assert (UNKNOWN if label == -1 else search.gallery.names[label]) == expected
    assert (search.labels == -1).sum() == 2


def test_what_cannot_be_found_is_refused(world) -> None:
    gallery, strangers = table(world, [0, 8]), table(world, [1, 17])
    with pytest.raises(UserError, match=r"'class02' of a probe has no image in the gallery.*dataset\.split=retrieval"):
        Search.build(gallery, strangers, unknown=UNKNOWN)
    with pytest.raises(UserError, match=r"eval\.bn_mode=transductive"):
        retrieval(world, bn_mode="transductive")

    class Fits(Shade):
        compares_pairs = False

    with pytest.raises(UserError, match="Fits does not compare two images"):
        Retrieval.check(Fits())


def test_an_image_is_embedded_once(world, hardware: Hardware) -> None:
    """Though the training images are the gallery of validation and part of the test's."""
    seen: list[int] = []

    class Counting(Shade):
        def embed(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            return super().embed(images)

    protocol = retrieval(world)
    evaluate(Counting(), protocol, hardware=hardware)
    asked = [s for search in (protocol.search, protocol.fitted_on) for s in (search.gallery.members, search.probes)]
    assert sum(seen) == len(np.unique(np.concatenate(asked)))
