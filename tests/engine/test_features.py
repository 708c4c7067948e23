"""Features of a frozen backbone in the place of images."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from patterns import FACTS
from torch import Tensor, nn

from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.compose import compose
from fewshot_runner.data.loader import TrainingLoader
from fewshot_runner.data.samplers import BatchSampler
from fewshot_runner.engine import features as module
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.features import FeatureViewer
from fewshot_runner.errors import UserError
from fewshot_runner.models.conv4 import Conv4
from fewshot_runner.models.precomputed import Precomputed


class Counting(nn.Module):
    """A network that knows how often it saw each image, and refuses to be trained."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = Conv4(FACTS, widths=(4, 4))
        self.out_features = self.network.out_features
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.sizes.append(len(images))
        return self.network(images)


def parts(world) -> list[Tensor]:
    return [torch.from_numpy(world.table(part).members) for part in ("train", "val", "test")]


def feature_viewer(world, hardware: Hardware, dtype: torch.dtype = torch.float32) -> tuple[FeatureViewer, Counting]:
    network = Counting().train().to(dtype)
    world.viewer.standardise = lambda images: images.to(dtype)
    return FeatureViewer(world.viewer, network, parts(world), hardware), network


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_features_are_the_backbones_output(world, hardware: Hardware, dtype: torch.dtype, tolerance: float) -> None:
    viewer, network = feature_viewer(world, hardware, dtype)
    index = torch.tensor([150, 3, 3, 95, 0, 101])
    features = viewer(index)
    assert network.training
    network.eval()
    with torch.no_grad():
        for row, number in zip(features, index, strict=True):
            alone = network.network(world.viewer(number[None]))[0]
            torch.testing.assert_close(row, alone, rtol=tolerance, atol=tolerance)
    assert not features.requires_grad


def test_features_of_mixed_precision_are_kept_in_float32(world) -> None:
    viewer, _ = feature_viewer(world, Hardware(device="cpu", threads=1, precision="bfloat16"))
    assert viewer(torch.tensor([3])).dtype == torch.float32


def test_an_image_is_computed_once_and_no_part_before_it_is_asked_for(world, hardware: Hardware) -> None:
    viewer, network = feature_viewer(world, hardware)
    train, val, test = parts(world)
    for _ in range(3):
        viewer(train[5:50])
    assert sum(network.sizes) == len(train)
    seen = torch.cat(world.seen)
    assert sorted(seen.tolist()) == sorted(train.tolist())
    viewer(torch.cat([val[:1], train[:1]]))
    assert not set(torch.cat(world.seen).tolist()) & set(test.tolist())
    viewer(test)
    assert sorted(torch.cat(world.seen).tolist()) == sorted(torch.cat([train, val, test]).tolist())


def test_what_is_computed_is_not_looked_for_in_the_parts_that_wait(world, hardware: Hardware, monkeypatch) -> None:
    """They may hold a million images, and every step of training would go through them."""
    viewer, _ = feature_viewer(world, hardware)
    train = parts(world)[0]
    viewer(train)
    monkeypatch.delattr(torch, "isin")
    assert len(viewer(train[5:50])) == 45


def test_a_resumed_run_sees_the_same_bits_whatever_it_asks_for_first(world, hardware: Hardware, monkeypatch) -> None:
    monkeypatch.setattr(module, "PHOTOGRAPHS_AT_ONCE", 7)
    one, _ = feature_viewer(world, hardware)
    other, _ = feature_viewer(world, hardware)
    everything = torch.cat(parts(world))
    first = one(everything)
    other(everything[-1:])
    other(everything[50:51])
    assert torch.equal(other(everything.flip(0)).flip(0), first)


def test_an_image_of_no_part_has_no_features(world, hardware: Hardware) -> None:
    viewer = FeatureViewer(world.viewer, Counting(), [torch.arange(5), torch.arange(8, 12)], hardware)
    viewer(torch.tensor([0, 9]))
    with pytest.raises(AssertionError, match="no part"):
        viewer(torch.tensor([6]))


def test_training_and_pictures(world, hardware: Hardware) -> None:
    """The loader hands features to the method, people are shown images, and both pass through one backbone."""
    viewer, network = feature_viewer(world, hardware)
    batch = TrainingLoader(viewer, BatchSampler(world.table("train"), batch_size=10, seed=0), None, seed=0)[0]
    index = BatchSampler(world.table("train"), batch_size=10, seed=0)[0].images
    assert batch.images.shape == (10, network.out_features)
    assert torch.equal(batch.images, viewer(index))
    assert viewer.pictures(index).shape == (10, 1, 8, 8)
    with pytest.raises(AssertionError, match="augmented"):
        viewer.augmented(index, lambda images, generator: images, torch.Generator())
    whole = Precomputed(network.network.eval())
    with torch.no_grad():
        torch.testing.assert_close(whole(batch.images), whole(world.viewer(index)))


@pytest.mark.parametrize("rotations", [False, True])
def test_turned_images_have_no_features_of_their_own(tmp_path: Path, rotations: bool) -> None:
    """Where every class stands for four, there are indices beyond those of the images."""
    characters = [f"++dataset.source.{key}={count}" for key, count in
                  (("alphabets", 6), ("characters", 6), ("drawers", 8))]  # fmt: skip
    builder = Builder(
        compose([
            "method=finetune", "dataset=glyphs", *characters, f"dataset.cache={tmp_path}", "dataset.augment=null",
            "dataset.symmetries=none", "dataset.tests=null", "trainer.cache_features=true", "hardware.device=cpu",
            "episode.n_query=2",
        ])
    )  # fmt: skip
    builder.dataset.split = replace(builder.dataset.split, rotations=rotations)
    build = builder.method

    def frozen(facts):
        method = build(facts)
        method.backbone.requires_grad_(False)
        return method

    builder.method = frozen
    if rotations:
        with pytest.raises(UserError, match=r"trainer\.cache_features=true: .*dataset\.split"):
            builder.experiment()
    else:
        assert builder.experiment().items[0].images.dim() == 2
