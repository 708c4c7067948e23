"""The evaluator against counting by hand, and what it must leave alone."""

import random
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from patterns import FACTS
from torch import Tensor, nn

from fewshot_runner.data.batch import Episode
from fewshot_runner.data.source import Run
from fewshot_runner.engine import answers as module
from fewshot_runner.engine.answers import embed_all, episode_logits, go_on
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.evaluate import answering, evaluate
from fewshot_runner.engine.protocols.base import Evaluation
from fewshot_runner.engine.protocols.episodes import EpisodeProtocol, Runs
from fewshot_runner.intervals import t_interval
from fewshot_runner.methods.anil import Anil
from fewshot_runner.methods.base import EmbeddingMethod, Method, evaluating
from fewshot_runner.methods.contrastive import Contrastive
from fewshot_runner.methods.finetune import Finetune
from fewshot_runner.methods.maml import Maml
from fewshot_runner.methods.prototypical import Prototypical
from fewshot_runner.methods.siamese import Siamese
from fewshot_runner.methods.triplet import Triplet
from fewshot_runner.models.conv4 import Conv4

EMBEDDING: dict[str, Callable[[nn.Module], EmbeddingMethod]] = {
    "prototypical": partial(Prototypical, distance="euclidean"),
    "prototypical by cosine": partial(Prototypical, distance="cosine"),
    "siamese": Siamese,
    "siamese with a hidden layer": partial(Siamese, hidden=5),
    "triplet": Triplet,
    "contrastive": partial(Contrastive, distance="l2", margin=1.0),
    "anil": Anil,
    "finetune": partial(Finetune, FACTS),
}
COMPARING = {name: make for name, make in EMBEDDING.items() if name not in ("anil", "finetune")}


class Brightness(Method):
    """Answers with the class whose support image is of the nearest mean brightness; no embedding to cache."""

    def loss(self, batch: object) -> Tensor:
        raise NotImplementedError

    def classify(self, episode: Episode) -> Tensor:
        assert not torch.is_grad_enabled()
        assert not self.training
        support, query = episode.support.flatten(2).mean(-1), episode.query.flatten(2).mean(-1)  # (E, S), (E, Q)
        order = episode.support_labels.argsort(dim=1)  # one shot: class n is the n-th
        return -(query[..., None] - support.gather(1, order)[:, None]).abs()


def by_hand(world, protocol) -> list[float]:
    """Accuracies of `Brightness` by plain loops over the pixels."""
    brightness = (world.pixels.double() / 255).mean(dim=(1, 2, 3)).tolist()
    accuracies = []
    for number in range(len(protocol)):
        task = protocol.draw(number, number + 1)
        support = dict(zip(task.support_labels[0].tolist(), task.support[0].tolist(), strict=True))
        right = 0
        for image, label in zip(task.query[0].tolist(), task.query_labels[0].tolist(), strict=True):
            answer = min(support, key=lambda n: abs(brightness[image] - brightness[support[n]]))
            right += answer == label
        accuracies.append(right / task.query.shape[1])
    return accuracies


def test_accuracies_by_hand(world, hardware: Hardware) -> None:
    protocol = world.protocol("test", episodes=30)
    evaluation = evaluate(Brightness(), protocol, hardware=hardware)
    assert evaluation.values.tolist() == pytest.approx(by_hand(world, protocol))
    assert len(set(evaluation.values.tolist())) > 3
    assert evaluation.ci95 == t_interval(evaluation.values)
    assert evaluation.protocol == {
        "protocol": "episodes", "part": "test", "n_way": 4, "n_shot": 1, "n_query": 3, "within_group": False,
        "imbalance": None, "episodes": 30, "episode_seed": 0, "mode": "inductive", "bn_mode": "running",
    }  # fmt: skip


def test_fixed_runs_by_hand(world, hardware: Hardware) -> None:
    runs = [
        Run(support=(8 * 18, 8 * 19), support_labels=(0, 1), query=(8 * 19 + 1, 8 * 18 + 2), query_labels=(1, 0)),
        Run(support=(8 * 21, 8 * 20), support_labels=(1, 0), query=(8 * 20 + 3, 8 * 21 + 1), query_labels=(0, 1)),
    ]
    protocol = Runs(runs, world.viewer, name="two_runs")
    evaluation = evaluate(Brightness(), protocol, hardware=hardware)
    assert evaluation.values.tolist() == pytest.approx(by_hand(world, protocol))
    described = evaluation.protocol
    assert (described["n_way"], described["n_shot"], described["n_query"], described["episodes"]) == (2, 1, 1, 2)
    assert (described["protocol"], described["part"], described["episode_seed"]) == ("runs", "two_runs", None)


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_a_method_answers_in_the_modes_of_the_test_and_has_its_own_back(world, make_method, error) -> None:
    method, protocol = make_method().train(), world.protocol("test")
    protocol.bn_mode = "support"
    mixed = Hardware(device="cpu", threads=1, precision="bfloat16")
    with pytest.raises(error) if error else nullcontext(), answering(method, protocol, mixed):
        assert not torch.is_grad_enabled()
        assert not any(part.training for part in method.modules())
        assert method.bn_mode == "support"
        assert torch.is_autocast_enabled("cpu")
        if error:
            raise error
    assert torch.is_grad_enabled()
    assert all(part.training for part in method.modules())
    assert method.bn_mode == "running"
    assert not torch.is_autocast_enabled("cpu")


def test_nothing_is_changed(world, hardware: Hardware, make_method) -> None:
    method = make_method()
    method.train()
    method.backbone.blocks[1].eval()
    modes = [part.training for part in method.modules()]
    values = {key: value.clone() for key, value in method.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    evaluate(method, world.protocol("test"), hardware=hardware)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]
    assert [part.training for part in method.modules()] == modes
    assert torch.is_grad_enabled()
    assert all(torch.equal(value, values[key]) for key, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())


def test_modes_come_back_after_an_error(world, hardware: Hardware, make_method) -> None:
    method = make_method().train()

    class Enough(Exception):
        pass

    def between() -> None:
        raise Enough

    with pytest.raises(Enough):
        evaluate(method, world.protocol("test"), hardware=hardware, between=between)
    assert all(part.training for part in method.modules())
    with pytest.raises(Enough):
        evaluate(Brightness(), world.protocol("test"), hardware=hardware, between=between)


@pytest.mark.parametrize(("images", "comparisons"), [(1, 1), (7, 50), (1024, 1 << 17)])
def test_chunks_do_not_change_accuracies(
    world, hardware: Hardware, make_method, monkeypatch: pytest.MonkeyPatch, images: int, comparisons: int
) -> None:
    protocol = world.protocol("test", episodes=25, n_shot=2)
    whole = evaluate(make_method(), protocol, hardware=hardware)
    monkeypatch.setattr(module, "IMAGES_AT_ONCE", images)
    monkeypatch.setattr(module, "COMPARISONS_AT_ONCE", comparisons)
    calls: list[int] = []
    chunked = evaluate(make_method(), protocol, hardware=hardware, between=lambda: calls.append(1))
    np.testing.assert_array_equal(chunked.values, whole.values)
    if (images, comparisons) == (1, 1):
        assert len(calls) == 6 * 8 + 25  # once an image, once an episode


@pytest.mark.parametrize("bound", ["COMPARISONS_AT_ONCE", "VALUES_AT_ONCE"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("make", EMBEDDING.values(), ids=EMBEDDING)
def test_chunks_are_answered_as_episode_by_episode(
    world, monkeypatch: pytest.MonkeyPatch, make: Callable[[nn.Module], EmbeddingMethod], dtype: torch.dtype,
    tolerance: float, bound: str,
) -> None:  # fmt: skip
    """Three episodes at a time, of eight images of support and twelve queries."""
    torch.manual_seed(0)
    backbone = Conv4(FACTS, widths=(8, 8))
    method = make(backbone).to(dtype).eval()
    of_three = {"COMPARISONS_AT_ONCE": 3 * 8 * 12, "VALUES_AT_ONCE": 3 * (8 + 12) * backbone.out_features}
    monkeypatch.setattr(module, "IMAGES_AT_ONCE", 7)
    monkeypatch.setattr(module, bound, of_three[bound])
    world.viewer.standardise = lambda images: images.to(dtype)
    protocol = world.protocol("test", episodes=25, n_shot=2)
    with torch.no_grad():
        chunks = [logits for _, logits in episode_logits(method, protocol.draw, 25, world.viewer, go_on)]
        alone = [method.classify(protocol.draw(k, k + 1).map(world.viewer)) for k in range(25)]
    assert [(len(logits), logits.dtype) for logits in chunks] == [(3, dtype)] * 8 + [(1, dtype)]
    assert alone[0].std() > 0.01
    torch.testing.assert_close(torch.cat(chunks), torch.cat(alone), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("most", "sizes"), [(1, [1] * 12), (5 * 8 + 7, [5, 5, 2]), (12 * 8, [12])])
@pytest.mark.parametrize("make", COMPARING.values(), ids=COMPARING)
def test_the_queries_of_a_large_episode_are_scored_some_at_a_time(
    world, monkeypatch: pytest.MonkeyPatch, make: Callable[[nn.Module], EmbeddingMethod], most: int, sizes: list[int]
) -> None:
    """Eight images of support and twelve queries, of which each is answered as if it were alone."""
    monkeypatch.setattr(module, "COMPARISONS_AT_ONCE", 1)
    monkeypatch.setattr(module, "MOST_COMPARISONS", most)
    method = make(Conv4(FACTS, widths=(8, 8))).eval()
    protocol, score, called = world.protocol("test", episodes=3, n_shot=2), method.score, []

    def watched(support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        called.append(query.shape[1])
        return score(support, support_labels, query, n_way)

    monkeypatch.setattr(method, "score", watched)
    breaks: list[int] = []
    with torch.no_grad():
        for episode, logits in episode_logits(
            method, protocol.draw, 3, world.viewer, lambda: breaks.append(len(called))
        ):
            for q in range(12):
                alone = score(episode.support, episode.support_labels, episode.query[:, q : q + 1], episode.n_way)
                torch.testing.assert_close(logits[:, q], alone[:, 0], rtol=1e-6, atol=1e-6)
            assert logits.shape == (1, 12, 4)
    assert called == sizes * 3
    assert [count for count in breaks if count] == list(range(1, len(called) + 1))  # an evaluation can end after each


def test_a_method_that_learns_from_the_support_does_so_once(world, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_COMPARISONS", 1)
    method = Finetune(FACTS, Conv4(FACTS, widths=(8, 8)), hidden=0).eval()
    score, called = method.score, []

    def watched(*features: Any) -> Tensor:
        called.append(features)
        return score(*features)

    monkeypatch.setattr(method, "score", watched)
    protocol = world.protocol("test", episodes=1)
    with torch.no_grad():
        [(_, logits)] = episode_logits(method, protocol.draw, 1, world.viewer, go_on)
    assert logits.shape == (1, 12, 4)
    assert len(called) == 1


def answered_alone(method: Method, protocol: EpisodeProtocol) -> list[float]:
    """The accuracy of each episode, given to `method.classify` by itself."""
    accuracies = []
    for number in range(len(protocol)):
        task = protocol.draw(number, number + 1)
        with torch.no_grad(), evaluating(method):
            logits = method.classify(task.map(protocol.viewer))
        answers = logits[0].argmax(dim=-1).tolist()
        right = [given == label for given, label in zip(answers, task.query_labels[0].tolist(), strict=True)]
        accuracies.append(sum(right) / len(right))
    return accuracies


@pytest.mark.parametrize("make", EMBEDDING.values(), ids=EMBEDDING)
def test_trap_04_batch_norm_takes_the_statistics_that_the_result_names(
    world, hardware: Hardware, make: Callable[[nn.Module], EmbeddingMethod]
) -> None:
    torch.manual_seed(0)
    method = make(Conv4(FACTS, widths=(8, 8))).train()
    method.embed(world.viewer(torch.arange(96)))  # running statistics of its own
    values = {}
    for mode in ("running", "support", "transductive"):
        protocol = world.protocol("test", episodes=30)
        protocol.bn_mode = mode
        evaluation = evaluate(method, protocol, hardware=hardware)
        assert evaluation.protocol["bn_mode"] == mode
        values[mode] = evaluation.values.tolist()
        method.bn_mode = mode
        assert values[mode] == pytest.approx(answered_alone(method, protocol)), mode
        method.bn_mode = "running"
    assert len(set(map(tuple, values.values()))) == 3, "every mode answers alike, so this has shown nothing"


@pytest.mark.parametrize(("images", "chunks"), [(1, 70), (40, 35), (1024, 2)])  # at 16 images an episode
@pytest.mark.parametrize("adapting", [True, False], ids=["maml", "brightness"])
def test_episodes_that_are_classified_whole_are_counted_once_each(
    world, hardware: Hardware, monkeypatch: pytest.MonkeyPatch, adapting: bool, images: int, chunks: int
) -> None:
    monkeypatch.setattr(module, "TASK_IMAGES_AT_ONCE", images)
    torch.manual_seed(0)
    method = Maml(Conv4(FACTS, widths=(8, 8)), order=1, test_steps=2) if adapting else Brightness()
    protocol = world.protocol("test", episodes=70)
    expected = answered_alone(method, protocol) if adapting else by_hand(world, protocol)
    calls: list[int] = []
    evaluation = evaluate(method, protocol, hardware=hardware, between=lambda: calls.append(1))
    assert len(calls) == chunks
    assert len(evaluation.values) == len(protocol) == 70
    assert evaluation.values.tolist() == pytest.approx(expected)
    assert len(set(expected)) > 3


def test_the_queries_of_a_single_episode_are_its_tasks(world, hardware: Hardware) -> None:
    protocol = world.protocol("test", episodes=1)
    evaluation = evaluate(Brightness(), protocol, hardware=hardware)
    assert evaluation.unit == "queries"
    assert sorted(set(evaluation.values.tolist())) == [0.0, 1.0]
    assert evaluation.values.shape == (4 * 3,)
    assert evaluation.values.mean() == pytest.approx(by_hand(world, protocol)[0])
    assert evaluate(Brightness(), world.protocol("test", episodes=2), hardware=hardware).unit == "episodes"


def test_an_image_is_embedded_once(world, hardware: Hardware) -> None:
    class Counting(EmbeddingMethod):
        seen = 0

        def loss(self, batch: object) -> Tensor:
            raise NotImplementedError

        def embed(self, images: Tensor) -> Tensor:
            self.seen += len(images)
            return images.flatten(1)

        def score(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
            return torch.zeros(*query.shape[:2], n_way)

    method = Counting()
    protocol = world.protocol("test", episodes=500)
    evaluate(method, protocol, hardware=hardware)
    assert method.seen == 6 * 8  # all images of the six test classes


def test_embed_all_keeps_the_order(world, make_method, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IMAGES_AT_ONCE", 3)
    method = make_method().eval()
    index = torch.tensor([5, 100, 3, 5, 17, 180, 0])
    with torch.no_grad():
        features = embed_all(method, world.viewer, index)
        for row, number in zip(features, index, strict=True):
            torch.testing.assert_close(row, method.embed(world.viewer(number[None]))[0])


def test_the_mean_is_over_tasks() -> None:
    evaluation = Evaluation({"accuracy": np.array([0.5, 1.0])}, {})
    assert evaluation.values.mean() == 0.75
    assert Evaluation({"accuracy": np.array([0.5])}, {}).ci95 is None


def test_mixed_precision_gives_finite_answers_without_spurious_ties(world, make_method) -> None:
    protocol = world.protocol("test", episodes=200)
    exact = evaluate(make_method(), protocol, hardware=Hardware(device="cpu", threads=1))
    mixed = evaluate(make_method(), protocol, hardware=Hardware(device="cpu", threads=1, precision="bfloat16"))
    assert np.isfinite(mixed.values).all()
    assert abs(mixed.values.mean() - exact.values.mean()) < 0.02
    earned = mixed.values * protocol.draw(0, 1).query.shape[1]
    assert np.allclose(earned, earned.round())  # a tie would have earned a part
