"""What an experiment is built of: that its settings reach the parts that they speak of."""

import pytest
import torch

from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.compose import compose
from fewshot_runner.data.batch import Batch
from fewshot_runner.engine.experiment import Experiment
from fewshot_runner.randomness import torch_generator


@pytest.fixture
def built(tiny):
    """An experiment, and the builder that made it."""

    def build(*overrides: str) -> tuple[Builder, Experiment]:
        builder = Builder(compose([*map(str, tiny("prototypical")), *overrides]))
        return builder, builder.experiment()

    return build


def test_training_sees_augmented_images(built) -> None:
    builder, experiment = built("seed=3")
    drawn, seen = experiment.items.sampler[5], experiment.items[5]
    assert isinstance(drawn, Batch)
    viewer = builder.dataset.viewer("train", torch.device("cpu"))
    expected = viewer.augmented(drawn.images, builder.dataset.augment, torch_generator(3, "augment", 5))
    assert torch.equal(seen.images, expected)
    assert not torch.equal(seen.images, viewer(drawn.images))


def test_without_augmentation_it_sees_them_as_they_are(built) -> None:
    builder, experiment = built("dataset.augment=null")
    viewer = builder.dataset.viewer("train", torch.device("cpu"))
    assert torch.equal(experiment.items[5].images, viewer(experiment.items.sampler[5].images))


def test_the_seed_reaches_weights_sampler_augmentation_and_steps_and_no_validation(built) -> None:
    (builder, first), (_, second) = built("seed=0"), built("seed=1")
    assert (first.seed, second.seed) == (0, 1)
    weights = [torch.cat([p.flatten() for p in each.method.backbone.parameters()]) for each in (first, second)]
    assert not torch.equal(*weights)
    assert not torch.equal(first.items.sampler[4].images, second.items.sampler[4].images)
    index = first.items.sampler[4].images
    views = [
        each.items.viewer.augmented(index, builder.dataset.augment, torch_generator(each.items.seed, "augment", 4))
        for each in (first, second)
    ]
    assert not torch.equal(*views)
    validations = [each.validation.draw(0, 5) for each in (first, second)]
    assert torch.equal(*(drawn.support for drawn in validations))
    assert torch.equal(*(drawn.query for drawn in validations))


def test_training_draws_from_the_training_classes_alone(built) -> None:
    builder, experiment = built()
    allowed = set(builder.dataset.table("train").members.tolist())
    for k in range(20):
        assert set(experiment.items.sampler[k].images.tolist()) <= allowed
