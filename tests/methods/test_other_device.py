"""Every method away from the processor: on torch's meta device, whose tensors have no values.

Nearly every operation on tensors of two devices raises there as on a GPU, and so does whatever needs a value, for which
a GPU would be waited for.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from fewshot_runner.cli.conf import conf_dir
from fewshot_runner.data.loader import Viewer
from fewshot_runner.engine.answers import go_on
from fewshot_runner.engine.experiment import Experiment
from fewshot_runner.methods.base import Classifier, evaluating
from fewshot_runner.methods.mining import MINING

METHODS = [(path.stem,) for path in sorted((conf_dir() / "method").glob("*.yaml"))]
MINERS = [("triplet", f"method.learner.mining={mining}") for mining in MINING]
WITHOUT_WEIGHTS = [(method, "model=pixels", "trainer.max_steps=0") for method in ("maml", "reptile", "anil")]
META = torch.device("meta")


@dataclass
class FromMeta:
    """A viewer whose images lie there; it is still asked with numbers that lie here."""

    viewer: Viewer
    device: torch.device = META

    def __call__(self, index: Tensor) -> Tensor:
        return self.viewer(index).to(META)


@pytest.fixture(params=METHODS + MINERS + WITHOUT_WEIGHTS, ids=" ".join)
def experiment(
    request: pytest.FixtureRequest, build: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> Experiment:
    """Its method on the meta device, which autocast does not know, and from which nothing can be fetched."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    experiment = build(*request.param).experiment()
    experiment.method.to(META)
    return experiment


@pytest.fixture
def zeros_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is fetched when all has been answered."""
    monkeypatch.setattr(Tensor, "cpu", lambda tensor: torch.zeros_like(tensor, device="cpu"))


def test_a_step_stays_there_and_waits_for_nothing(experiment: Experiment) -> None:
    method = experiment.method.train()
    if experiment.optimizer is None:
        pytest.skip("it has no weights to train")
    figures = method.backward(experiment.items[0].to(META))
    experiment.progress.add(figures)
    assert experiment.progress.totals["loss"].device == META
    gradients = [parameter.grad for parameter in method.parameters() if parameter.grad is not None]
    assert len(gradients) > 0 or not list(method.parameters())
    assert all(gradient.device == META for gradient in gradients)


@pytest.mark.parametrize("bn_mode", ["running", "support", "transductive"])
def test_answers_stay_there(experiment: Experiment, bn_mode: str) -> None:
    method, validation = experiment.method, experiment.validation
    episode = validation.draw(0, 3).map(FromMeta(validation.viewer)).to(META)
    method.bn_mode = bn_mode
    with torch.no_grad(), evaluating(method):
        logits = method.classify(episode)
    assert (logits.device, logits.shape) == (META, (3, 8, 4))


def test_a_test_counts_here_what_is_answered_there(experiment: Experiment, zeros_come_back: None) -> None:
    method, validation = experiment.method, experiment.validation
    validation.viewer = FromMeta(validation.viewer)
    with torch.no_grad(), evaluating(method):
        evaluation = validation.measure(method, go_on)
    assert evaluation.values.mean() == 1 / 4  # all logits alike
    if isinstance(method, Classifier):
        assert method.recognise(validation.viewer(torch.arange(3))).device == META
