"""Every method in conf/method, trained for a few steps as the project builds it."""

from collections.abc import Callable

import pytest
import torch
from divided_glyphs import asked_by
from recorder import Recorder
from same_bits import assert_same_bits
from sight_of_tests import watch

from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.conf import conf_dir
from fewshot_runner.cli.protocols import KINDS
from fewshot_runner.engine.evaluate import evaluate
from fewshot_runner.engine.experiment import Experiment
from fewshot_runner.engine.fit import fit
from fewshot_runner.engine.stopping import StopRequest
from fewshot_runner.errors import UserError

METHODS = sorted(path.stem for path in (conf_dir() / "method").glob("*.yaml"))
SHORT = ("trainer.max_steps=7", "trainer.val_every=2", "trainer.checkpoint_every=3", "trainer.log_every=2",
         "trainer.patience=3")  # fmt: skip
Build = Callable[..., Builder]


@pytest.fixture(params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def run(experiment: Experiment) -> Recorder:
    recorder = Recorder()

    def validate() -> dict[str, float]:
        return evaluate(experiment.method, experiment.validation, hardware=experiment.hardware).means()

    fit(experiment, validate, recorder, recorder, StopRequest())
    return recorder


def test_trap_16_a_resumed_run_ends_with_the_same_bits(build: Build, name: str) -> None:
    builder = build(name, *SHORT)
    whole = builder.experiment()
    uninterrupted = run(whole)
    resumed = builder.experiment()
    resumed.load_state_dict(uninterrupted.states[3])
    continued = run(resumed)
    assert continued.events == uninterrupted.events[uninterrupted.events.index("save step 3") + 1 :]
    for goes_on, all_of_it in ((continued.train, uninterrupted.train), (continued.val, uninterrupted.val)):
        assert goes_on == {step: figures for step, figures in all_of_it.items() if step > 3}
        assert goes_on
    assert_same_bits(resumed.state_dict(), whole.state_dict())
    assert any(
        not torch.equal(value, uninterrupted.states[3]["method"][key])
        for key, value in whole.method.state_dict().items()
    )  # something was learned in between


@pytest.mark.parametrize("protocol", KINDS)
def test_trap_07_test_images_are_viewed_only_by_the_tests(
    build: Build, name: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = build(name, *SHORT, *asked_by(protocol))
    compares = getattr(builder.method(builder.facts()), "compares_pairs", False)
    seen = watch(monkeypatch)
    if protocol in ("verification", "retrieval") and not compares:
        with pytest.raises(UserError, match=r"does not compare two images|knows running statistics alone"):
            builder.experiment()
        assert seen == []
        return
    experiment = builder.experiment()
    run(experiment)
    assert seen == []
    [test] = experiment.tests().values()
    assert {*seen} == {"viewer", "protocol"}
    evaluate(experiment.method, test, hardware=experiment.hardware)
    assert {*seen} == {"viewer", "protocol", "image"}


def test_a_momentum_is_checked_where_there_is_one(build: Build) -> None:
    """Before any image is read, as every component."""
    assert build("siamese", "+method.momentum=null").config.method["momentum"] is None
    constant = "+method.momentum._target_=fewshot_runner.engine.schedule.Constant"
    assert build("siamese", constant).config.method["momentum"]
    with pytest.raises(UserError, match=r"method\.momentum\.typo=1: there is no such key"):
        build("siamese", constant, "+method.momentum.typo=1")
