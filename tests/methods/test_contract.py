"""What every method promises, for every file in conf/method.

Shapes: E episodes, N ways, S support images, Q queries.
"""

from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.conf import conf_dir
from fewshot_runner.data.batch import Batch, Episode
from fewshot_runner.data.loader import Viewer
from fewshot_runner.engine.evaluate import evaluate
from fewshot_runner.engine.experiment import Experiment
from fewshot_runner.engine.metrics import query_accuracy
from fewshot_runner.engine.protocols.base import Protocol
from fewshot_runner.engine.protocols.episodes import EpisodeProtocol
from fewshot_runner.errors import UserError
from fewshot_runner.methods.base import EmbeddingMethod, Method
from fewshot_runner.randomness import torch_seed

METHODS = sorted(path.stem for path in (conf_dir() / "method").glob("*.yaml"))
Build = Callable[..., Builder]


def test_there_are_methods() -> None:
    assert METHODS


@pytest.fixture(params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def experiment(build: Build, name: str) -> Experiment:
    """A method after three steps, so that its weights and statistics are no longer what they were built with."""
    experiment = build(name).experiment()
    for step in range(3):
        train_step(experiment, step)
    return experiment


@pytest.fixture
def method(experiment: Experiment) -> Method:
    return experiment.method


@pytest.fixture
def episode(experiment: Experiment) -> Episode:
    """Three episodes of images: 4 ways, 1 shot, 2 queries a class."""
    return experiment.validation.draw(0, 3).map(experiment.validation.viewer)


def train_step(experiment: Experiment, step: int) -> None:
    experiment.method.train()
    experiment.optimizer.zero_grad()
    torch.manual_seed(torch_seed(experiment.seed, "step", step))  # as the loop does, for dropout
    experiment.method.backward(experiment.items[step])
    experiment.optimizer.step()


def unequal(episode: Episode) -> Episode:
    """The same images with 1 to 4 shots a class: eight of the queries become support."""
    chosen = torch.stack([torch.cat([(labels == 1).nonzero()[:1, 0], (labels == 3).nonzero()[:2, 0]])
                          for labels in episode.query_labels])  # (E, 3)  # fmt: skip
    moved = episode.query[torch.arange(len(chosen))[:, None], chosen]
    moved_labels = episode.query_labels.gather(1, chosen)
    return replace(
        episode,
        support=torch.cat([episode.support, moved], dim=1),
        support_labels=torch.cat([episode.support_labels, moved_labels], dim=1),
    )


def classify(method: Method, episode: Episode) -> Tensor:
    with torch.no_grad():
        return method.classify(episode)


def test_logits_have_a_column_for_each_way(method: Method, episode: Episode) -> None:
    logits = classify(method, episode)
    assert logits.shape == (3, 8, 4)
    assert logits.isfinite().all()
    assert logits.unique().numel() > 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_gradients", [True, False])
def test_classify_leaves_the_method_as_it_is(
    method: Method, episode: Episode, training: bool, with_gradients: bool
) -> None:
    method.train(training)
    next(iter(method.children())).training = not training  # a mode of its own, as a frozen backbone has
    values = {key: value.clone() for key, value in method.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in method.parameters()]
    modes = [part.training for part in method.modules()]
    needs = [p.requires_grad for p in method.parameters()]

    with torch.set_grad_enabled(with_gradients):
        method.classify(episode)

    for key, value in method.state_dict().items():
        assert torch.equal(value, values[key]), key
    for parameter, gradient in zip(method.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)
    assert [part.training for part in method.modules()] == modes
    assert [p.requires_grad for p in method.parameters()] == needs


def test_the_training_mode_does_not_change_the_answer(method: Method, episode: Episode) -> None:
    assert torch.equal(classify(method.train(), episode), classify(method.eval(), episode))


def test_gradients_are_finite_and_not_all_zero(build: Build, name: str) -> None:
    experiment = build(name).experiment()
    figures = experiment.method.backward(experiment.items[0])
    gradients = [p.grad for p in experiment.method.parameters() if p.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().sum() > 0 for gradient in gradients)
    assert "loss" in figures
    assert all(value.isfinite() and not value.requires_grad and value.dim() == 0 for value in figures.values())


OTHER_SAMPLERS = {
    Batch: {"_target_": "fewshot_runner.data.samplers.BatchSampler", "batch_size": 8},
    Episode: {
        "_target_": "fewshot_runner.data.samplers.EpisodeSampler", "n_way": 3, "n_shot": 1, "n_query": 1,
        "within_group": False, "episodes": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHER_SAMPLERS)
def test_a_sampler_is_learned_from_or_refused_before_training(build: Build, name: str, kind: type) -> None:
    builder = build(name)
    config = asdict(builder.config) | {"method": {**builder.config.method, "sampler": OTHER_SAMPLERS[kind]}}
    other = Builder(config)
    other.dataset = builder.dataset
    if kind in builder.method(builder.facts()).learns_from:
        experiment = other.experiment()
        assert experiment.method.backward(experiment.items[0])["loss"].isfinite()
    else:
        with pytest.raises(UserError, match=r"method\.sampler draws .* learns from"):
            other.experiment()


def test_backward_adds_to_the_gradients(build: Build, name: str) -> None:
    """So that a batch may be divided up; the loop alone sets them to zero."""
    experiment = build(name).experiment()
    experiment.method.eval()
    experiment.method.backward(experiment.items[0])
    once = [p.grad.clone() for p in experiment.method.parameters()]
    experiment.method.backward(experiment.items[0])
    for parameter, gradient in zip(experiment.method.parameters(), once, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * gradient)


@pytest.mark.parametrize("shots", ["equal", "unequal"])
def test_trap_05_permuting_class_labels_permutes_the_columns(method: Method, episode: Episode, shots: str) -> None:
    episode = unequal(episode) if shots == "unequal" else episode
    new = torch.tensor([2, 0, 3, 1])  # class c is now called new[c]
    renamed = replace(episode, support_labels=new[episode.support_labels], query_labels=new[episode.query_labels])
    torch.testing.assert_close(classify(method, renamed)[..., new], classify(method, episode), rtol=1e-4, atol=1e-4)


def test_trap_05_the_order_of_queries_and_of_support_leaks_nothing(method: Method, episode: Episode) -> None:
    episode = unequal(episode)
    if not isinstance(method, EmbeddingMethod):  # another order is another rounding, which inner steps multiply
        method, episode = method.double(), episode.map(Tensor.double)
    random = torch.Generator().manual_seed(0)
    logits = classify(method, episode)
    order = torch.randperm(episode.query.shape[1], generator=random)
    shuffled = replace(episode, query=episode.query[:, order], query_labels=episode.query_labels[:, order])
    torch.testing.assert_close(classify(method, shuffled), logits[:, order], rtol=1e-4, atol=1e-4)
    order = torch.randperm(episode.support.shape[1], generator=random)
    shuffled = replace(episode, support=episode.support[:, order], support_labels=episode.support_labels[:, order])
    torch.testing.assert_close(classify(method, shuffled), logits, rtol=1e-4, atol=1e-4)


def test_query_labels_are_not_looked_at(method: Method, episode: Episode) -> None:
    hidden = replace(episode, query_labels=torch.zeros_like(episode.query_labels))
    assert torch.equal(classify(method, hidden), classify(method, episode))


@pytest.mark.parametrize("bn_mode", ["running", "support"])
@pytest.mark.parametrize("training", [True, False])
def test_trap_04_one_query_at_a_time_equals_all_at_once(
    method: Method, episode: Episode, training: bool, bn_mode: str
) -> None:
    method.train(training).bn_mode = bn_mode
    together = classify(method, episode)
    for q in range(episode.query.shape[1]):
        alone = replace(episode, query=episode.query[:, q, None], query_labels=episode.query_labels[:, q, None])
        torch.testing.assert_close(classify(method, alone), together[:, q, None], rtol=1e-4, atol=1e-4)


def test_one_episode_at_a_time_equals_all_at_once(method: Method, episode: Episode) -> None:
    together = classify(method, episode)
    for e in range(3):
        torch.testing.assert_close(classify(method, episode[e : e + 1]), together[e, None], rtol=1e-4, atol=1e-4)


def test_unequal_shots_use_every_example(method: Method, episode: Episode) -> None:
    episode = unequal(episode)
    assert [labels.bincount().tolist() for labels in episode.support_labels] == [[1, 2, 1, 3]] * 3
    logits = classify(method, episode)
    assert logits.isfinite().all()
    for example in (-1, -3):  # of class 3 and class 1
        other = replace(episode, support=episode.support.clone())
        other.support[:, example] = 1 - other.support[:, example]
        label = int(episode.support_labels[0, example])
        changed = (classify(method, other) - logits).abs().amax(dim=(0, 1)) > 1e-4  # (N,)
        assert changed[label]


def test_the_same_seed_gives_the_same_bits(build: Build, name: str) -> None:
    states = []
    for seed in (0, 0, 1):
        experiment = build(name, f"seed={seed}").experiment()
        torch.manual_seed(seed + len(states))  # what a library draws from the global state must not matter
        for step in range(2):
            train_step(experiment, step)
        states.append(experiment.method.state_dict())
    assert all(torch.equal(states[0][key], value) for key, value in states[1].items())
    assert not all(torch.equal(states[0][key], value) for key, value in states[2].items())


class OnePicture(Viewer):
    """Shows `picture` (1, C, H, W) at every index."""

    def __init__(self, viewer: Viewer, picture: Tensor) -> None:
        super().__init__(viewer.images, viewer.standardise, symmetries=viewer.symmetries, device=viewer.device)
        self.picture = picture

    def __call__(self, index: Tensor) -> Tensor:
        return self.picture.repeat(len(index), 1, 1, 1)


@pytest.mark.parametrize("shots", ["equal", "unequal"])
def test_trap_01_the_same_picture_everywhere_scores_one_in_n(experiment: Experiment, shots: str) -> None:
    """Whatever the weights are: nothing tells the classes apart but how many images they have."""
    validation = experiment.validation
    if shots == "unequal":
        draw = validation.draw
        validation.draw = lambda start, stop: unequal(draw(start, stop))
    picture = validation.viewer(validation.draw(0, 1).support[0, :1])  # (1, C, H, W)
    validation.viewer = OnePicture(validation.viewer, picture)
    evaluation = evaluate(experiment.method, validation, hardware=experiment.hardware)
    np.testing.assert_array_equal(evaluation.values, np.full(6, 1 / 4))
    if shots == "equal":  # else the steps of MAML and Reptile rightly prefer the larger classes
        assert_each_query_earns_a_quarter(experiment.method, validation)


def assert_each_query_earns_a_quarter(method: Method, validation: EpisodeProtocol) -> None:
    """The mean over as many queries of each class would hide that one class always wins."""
    drawn = validation.draw(0, 3)
    with torch.no_grad():
        logits = method.eval().classify(drawn.map(validation.viewer))
    earned = query_accuracy(logits.float(), drawn.query_labels)
    assert torch.equal(earned, torch.full_like(earned, 1 / 4))


def test_trap_01_a_network_without_weights_scores_one_in_n(experiment: Experiment) -> None:
    weights = list(experiment.method.backbone.parameters())
    if not weights:
        pytest.skip("its backbone has no weights")
    with torch.no_grad():
        for weight in weights:
            weight.zero_()
    evaluation = evaluate(experiment.method, experiment.validation, hardware=experiment.hardware)
    assert evaluation.values.mean() == 1 / 4
    assert_each_query_earns_a_quarter(experiment.method, experiment.validation)


class Uncached(Method):
    """A method without an embedding to cache, so that the evaluator must classify episode by episode."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def loss(self, batch: object) -> Tensor:
        raise NotImplementedError

    def classify(self, episode: Episode) -> Tensor:
        self.method.bn_mode = self.bn_mode
        return self.method.classify(episode)


@pytest.mark.parametrize("bn_mode", ["running", "support", "transductive"])
def test_trap_04_cached_evaluation_equals_episode_by_episode(experiment: Experiment, bn_mode: str) -> None:
    if not isinstance(experiment.method, EmbeddingMethod):
        pytest.skip("it has no embedding to cache")
    protocol: Protocol
    for protocol in (experiment.validation, *experiment.tests().values()):
        protocol.bn_mode = bn_mode
        cached = evaluate(experiment.method, protocol, hardware=experiment.hardware)
        plain = evaluate(Uncached(experiment.method), protocol, hardware=experiment.hardware)
        np.testing.assert_array_equal(cached.values, plain.values)
        assert len(cached.values) == len(protocol)
