"""The classes of training, other images: against loops over names, and what few-shot supports may hold.

Shapes: B images, Q queries, N classes.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.engine import answers as module
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.evaluate import evaluate
from fewshot_runner.engine.protocols.closed_set import ClosedSet
from fewshot_runner.errors import UserError
from fewshot_runner.methods.base import Classifier, EmbeddingMethod

NAMES = [f"class{c:02d}" for c in range(24)]
GROUPS = [f"group{c // 3}" for c in range(24)]


class Constant(EmbeddingMethod):
    """Gives every class the same score, whatever it is shown."""

    def loss(self, batch: object) -> Tensor:
        raise NotImplementedError

    def embed(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def score(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        return torch.zeros(*query.shape[:2], n_way)


class ConstantHead(Constant, Classifier):
    n_classes = 12

    def recognise(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), self.n_classes)


class Nearest(Constant):
    """The class of the nearest support image, by plain distances of pixels."""

    def score(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        distances = torch.cdist(query, support)  # (E, Q, S)
        of_class = nn.functional.one_hot(support_labels, n_way).bool()  # (E, S, N)
        return -distances[..., None].masked_fill(~of_class[:, None], torch.inf).amin(2)


class Head(ConstantHead):
    """A fixed linear head with answers of its own."""

    def recognise(self, images: Tensor) -> Tensor:
        weight = torch.randn(12, images[0].numel(), generator=torch.Generator().manual_seed(0))
        return images.flatten(1) @ weight.T


def by_image(world, images: range, classes: range = range(12)) -> ClassTable:
    """Some of the eight images of some classes."""
    keep = np.flatnonzero(np.isin(world.labels, classes) & np.isin(np.arange(len(world.labels)) % 8, images))
    return ClassTable.build(world.labels, NAMES, GROUPS, keep)


def closed_set(world, *, n_shot: int | str = "all", queries: ClassTable | None = None, **options) -> ClosedSet:
    given = {"episodes": 6, "seed": 0, "part": "test", **options}
    return ClosedSet(by_image(world, range(5)), queries or by_image(world, range(5, 8)), world.viewer,
                     n_shot=n_shot, **given)  # fmt: skip


@pytest.mark.parametrize("method", [Constant(), ConstantHead()])
@pytest.mark.parametrize("n_shot", ["all", 1, 3])
def test_trap_01_a_constant_method_scores_one_in_n(world, hardware: Hardware, method, n_shot) -> None:
    evaluation = evaluate(method, closed_set(world, n_shot=n_shot), hardware=hardware)
    np.testing.assert_allclose(evaluation.values, 1 / 12, rtol=1e-12)


@pytest.mark.parametrize("most", [module.MOST_COMPARISONS, 7 * 60])  # of the latter, seven queries at a time
def test_all_training_images_are_the_support_of_a_method_without_a_head(
    world, hardware: Hardware, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(module, "MOST_COMPARISONS", most)
    evaluation = evaluate(Nearest(), closed_set(world), hardware=hardware)
    pixels = world.pixels.flatten(1).double()
    support = [i for i in range(96) if i % 8 < 5]
    right, confusion = [], np.zeros((12, 12), dtype=int)
    for query in (i for i in range(96) if i % 8 >= 5):
        nearest = min(support, key=lambda s: float((pixels[query] - pixels[s]).norm()))
        right.append(float(nearest // 8 == query // 8))
        confusion[query // 8, nearest // 8] += 1
    assert 0.2 < np.mean(right) < 1
    assert evaluation.values.tolist() == right
    assert evaluation.confusion.tolist() == confusion.tolist()
    assert evaluation.unit == "images"


def test_a_trained_head_answers_and_its_loss_is_the_surprise(world, hardware: Hardware) -> None:
    method = Head()
    evaluation = evaluate(method, closed_set(world), hardware=hardware)
    queries = [i for i in range(96) if i % 8 >= 5]
    logits = method.recognise(world.viewer(torch.tensor(queries))).double()
    answers, surprises = [], []
    for query, row in zip(queries, logits.tolist(), strict=True):
        shares = [np.exp(value - max(row)) for value in row]
        answers.append(int(np.argmax(row)))
        surprises.append(-np.log(shares[query // 8] / sum(shares)))
    assert evaluation.values.tolist() == [float(a == q // 8) for a, q in zip(answers, queries, strict=True)]
    np.testing.assert_allclose(evaluation.figures["loss"], surprises, rtol=1e-4)
    assert evaluation.means()["loss"] == pytest.approx(np.mean(surprises), rel=1e-4)
    counts = [[sum(a == column and q // 8 == row for a, q in zip(answers, queries, strict=True))
               for column in range(12)] for row in range(12)]  # fmt: skip
    assert evaluation.confusion.tolist() == counts
    assert evaluation.confusion.sum() == len(queries)


def test_labels_are_those_of_training_though_a_part_lists_its_classes_otherwise(world, hardware: Hardware) -> None:
    """The queries' own numbers start at another class, leave one out, and follow other groups."""
    few = by_image(world, range(5, 8), classes=[9, 4, 7])
    turned = ClassTable.build(world.labels, NAMES, GROUPS[::-1], few.members)
    assert turned.names != few.names
    for queries in (few, turned):
        protocol = closed_set(world, queries=queries)
        episode = protocol.draw(0, 1)
        train = by_image(world, range(5))
        for image, label in zip(episode.query[0].tolist(), episode.query_labels[0].tolist(), strict=True):
            assert train.names[label] == NAMES[image // 8]
        right = [float(Head().recognise(world.viewer(torch.tensor([i]))).argmax() == i // 8)
                 for i in episode.query[0].tolist()]  # fmt: skip
        assert evaluate(Head(), protocol, hardware=hardware).values.tolist() == right


def test_the_outputs_of_a_head_that_was_trained_elsewhere_mean_what_its_classes_are_called(world, hardware) -> None:
    """Its twelve classes in an order of its own, some of which these data do not have."""
    own = ["zebra", *NAMES[11:3:-1], "ape", "bear", "cow"]
    queries = by_image(world, range(5, 8), classes=[4, 9, 11])
    options = {"episodes": 1, "seed": 0, "part": "test"}
    protocol = ClosedSet(None, queries, world.viewer, n_shot="all", head=own, **options)
    evaluation = evaluate(Head(), protocol, hardware=hardware)
    images = [i for i in range(96) if i // 8 in (4, 9, 11) and i % 8 >= 5]
    answers = [own[int(Head().recognise(world.viewer(torch.tensor([i]))).argmax())] for i in images]
    assert evaluation.values.tolist() == [float(said == NAMES[i // 8]) for i, said in zip(images, answers, strict=True)]
    pairs = [(NAMES[i // 8], said) for i, said in zip(images, answers, strict=True)]
    assert evaluation.confusion.tolist() == [[pairs.count((row, column)) for column in own] for row in own]
    assert evaluation.protocol["n_way"] == 12
    train = by_image(world, range(5), classes=[4, 9, 11])
    few = ClosedSet(train, queries, world.viewer, n_shot=2, head=own, **options)  # where no head is asked
    assert few.draw(0, 1).n_way == few.describe()["n_way"] == 3
    assert {NAMES[i // 8] for i in images} == {few.names[label] for label in few.draw(0, 1).query_labels[0].tolist()}


def test_classes_that_a_head_does_not_know_are_refused_by_name(world) -> None:
    options = {"episodes": 1, "seed": 0, "part": "test", "head": NAMES[:6]}
    table = by_image(world, range(8), classes=range(4, 8))
    with pytest.raises(UserError, match=r"does not know 'class06', 'class07' of the test part.*6 classes"):
        ClosedSet(None, table, world.viewer, n_shot="all", **options)


@pytest.mark.parametrize("n_shot", [1, 3, 5])
def test_few_shot_supports_are_different_training_images_and_no_queries(world, n_shot: int) -> None:
    protocol = closed_set(world, n_shot=n_shot, episodes=300)
    episodes = protocol.draw(0, 300)
    assert episodes.support.shape == (300, 12 * n_shot)
    assert (episodes.support % 8 < 5).all()
    assert (episodes.query % 8 >= 5).all()
    assert (episodes.support // 8 == episodes.support_labels).all()
    assert (episodes.query // 8 == episodes.query_labels).all()
    assert {tuple(sorted(row)) for row in episodes.query.tolist()} == {tuple(i for i in range(96) if i % 8 >= 5)}
    assert all(len(set(row)) == 12 * n_shot for row in episodes.support.tolist())
    assert len(episodes.support.unique()) == 60  # every training image has its turn
    pieces = torch.cat([protocol.draw(7, 300).support, protocol.draw(0, 7).support])
    assert torch.equal(pieces.roll(7, 0), episodes.support)
    other = closed_set(world, n_shot=n_shot, episodes=300, seed=1).draw(0, 300)
    assert not torch.equal(other.support, episodes.support)


class OneClass(Head):
    """Whatever the support, it answers one class."""

    def score(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        return torch.eye(n_way)[3].expand(*query.shape[:2], n_way)


def test_with_few_shots_the_support_decides_and_not_the_trained_head(world, hardware: Hardware) -> None:
    """Episodes are the tasks: their interval is nothing where the support changes nothing, though other test images
    would change the figure."""
    few = by_image(world, range(5, 8), classes=[3, 4, 7])
    evaluation = evaluate(OneClass(), closed_set(world, n_shot=2, queries=few), hardware=hardware)
    assert evaluation.values.tolist() == pytest.approx([1 / 3] * 6)
    assert evaluation.ci95 == pytest.approx(0.0, abs=1e-12)
    assert (evaluation.unit, evaluation.confusion) == ("episodes", None)
    described = evaluation.protocol
    assert (described["n_shot"], described["episodes"], described["episode_seed"]) == (2, 6, 0)
    assert evaluate(OneClass(), closed_set(world, n_shot=2), hardware=hardware).values.mean() == pytest.approx(1 / 12)
    by_head = evaluate(OneClass(), closed_set(world, queries=few), hardware=hardware)
    assert by_head.values.mean() != pytest.approx(1 / 3), "the head would give the same figure"


@pytest.mark.parametrize("n_shot", ["all", 2])
def test_the_figures_promised_are_those_given(world, hardware: Hardware, n_shot) -> None:
    protocol = closed_set(world, n_shot=n_shot)
    assert tuple(evaluate(Head(), protocol, hardware=hardware).figures) == protocol.figures


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_shot": 6}, "n_shot=6.*'class00' has only 5"),
        ({"n_shot": 0}, "n_shot=0: give a whole number of 1 or more"),
        ({"bn_mode": "transductive"}, "eval.bn_mode=transductive"),
        ({"bn_mode": "support"}, "eval.bn_mode=support"),
    ],
)
def test_what_cannot_be_held_is_refused(world, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        closed_set(world, **options)


def test_a_class_that_was_never_trained_on_is_refused(world) -> None:
    with pytest.raises(UserError, match=r"'class12' is a class of the val part and not of training.*dataset\.split"):
        closed_set(world, queries=by_image(world, range(5, 8), classes=range(13)), part="val")
