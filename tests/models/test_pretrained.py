"""What holds for every network of another library: its classifier is off, and what is frozen does not move."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.models.pretrained import Pretrained, Standard, standardised_otherwise, without_classifier


def facts(channels: int = 3, size: int = 16) -> Facts:
    return Facts(image_shape=(channels, size, size), n_classes=5, n_way=5)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    stage = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.5))
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), stage, nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )  # fmt: skip


def trained_a_little(model: Pretrained) -> tuple[dict, dict]:
    """The state before and after three optimiser steps in training mode."""
    head = nn.Linear(model.out_features, 2)
    optimizer = torch.optim.SGD([*model.parameters(), *head.parameters()], lr=0.5, momentum=0.9, weight_decay=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        model.train()
        optimizer.zero_grad()
        images = 3 + 5 * torch.rand(8, 3, 16, 16, generator=generator)
        nn.functional.cross_entropy(head(model(images)), torch.arange(8) % 2).backward()
        optimizer.step()
    return before, model.state_dict()


def test_a_frozen_network_stays_as_it_is_to_the_bit_through_training():
    model = Pretrained(facts(), network(), name="toy", frozen=True, thaw=[])
    before, after = trained_a_little(model)
    assert before.keys() == after.keys()
    assert len(before) == 14  # per convolution weight and bias, per batch norm two and three statistics
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    assert not any(parameter.requires_grad for parameter in model.parameters())
    images = torch.rand(4, 3, 16, 16)
    assert torch.equal(model.train()(images), model.eval()(images))  # dropout rests too


def test_what_is_thawed_trains_and_the_rest_does_not():
    model = Pretrained(facts(), network(), name="toy", frozen=True, thaw=["3"])
    before, after = trained_a_little(model)
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {name for name in before if name.startswith("network.3.")}
    assert len(changed) == 7
    assert model.network[3].training
    assert not model.network[1].training
    model.eval()
    assert not any(module.training for module in model.modules())


def test_what_is_not_frozen_trains_as_a_whole():
    before, after = trained_a_little(Pretrained(facts(), network(), name="toy", frozen=False, thaw=[]))
    assert not any(torch.equal(value, after[name]) for name, value in before.items())


def test_building_one_leaves_its_statistics_alone_and_its_mode_training():
    plain = network()
    state = {name: value.clone() for name, value in plain.state_dict().items()}
    model = Pretrained(facts(), plain, name="toy", frozen=False, thaw=[])
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())
    assert model.out_features == 6


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({}, (1, 16), r"dataset\.channels=1: toy takes images of 3 channels; set dataset\.channels=3"),
        ({}, (3, 4), r"dataset\.image_size=4x4: toy does not take it .* try 224"),
        ({"thaw": ["3"]}, (3, 16), r"model\.thaw=\['3'\].*model\.frozen=true"),
        ({"frozen": True, "thaw": ["layer4"]}, (3, 16), r"no trainable part 'layer4'; there is 0, 1, 3$"),
        ({"frozen": True, "thaw": ["2"]}, (3, 16), r"no trainable part '2'"),  # a ReLU
        ({"frozen": True, "thaw": [""]}, (3, 16), r"no trainable part ''"),  # the whole
    ],
)
def test_what_cannot_be_is_refused(changes: dict, shape: tuple, message: str):
    with pytest.raises(UserError, match=message):
        Pretrained(facts(*shape), network(), name="toy", **{"frozen": False, "thaw": [], **changes})


def test_a_network_made_for_one_size_refuses_others():
    class Transformer(nn.Conv2d):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert images.shape[2] == 224, "made for 224"
            return super().forward(images)

    with pytest.raises(UserError, match=r"dataset\.image_size=16x16: toy does not take it \(made for 224\); try 224"):
        Pretrained(facts(), Transformer(3, 4, 3), name="toy", frozen=False, thaw=[])


def test_a_network_that_gives_maps_instead_of_features_is_refused():
    with pytest.raises(UserError, match=r"model\.name=toy: .* one row of features"):
        Pretrained(facts(), network()[:2], name="toy", frozen=False, thaw=[])


def test_the_classifier_is_the_last_linear_layer_with_its_dropout():
    first, last = nn.Linear(4, 4), nn.Linear(4, 9)
    bare = without_classifier(nn.Sequential(first, nn.Dropout(0.1), nn.ReLU(), nn.Dropout(0.5), last))
    assert bare[0] is first
    assert [type(module) for module in bare] == [nn.Linear, nn.Dropout, nn.ReLU, nn.Identity, nn.Identity]
    with pytest.raises(ValueError, match="no linear layer"):
        without_classifier(nn.Sequential(nn.Conv2d(3, 4, 1)))


def test_importing_the_backbones_imports_neither_library():
    modules = [f"fewshot_runner.models.{n}" for n in ("pretrained", "torchvision_backbone", "timm_backbone")]
    code = f"import sys, {', '.join(modules)}, fewshot_runner.models.efficientnet_lite0; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(modules) <= set(loaded)
    assert not {"torchvision", "torchvision.models", "timm"} & set(loaded)


@pytest.mark.parametrize(
    ("mean", "std", "differs"),
    [
        ([0.5, 0.5, 0.5], [0.25, 0.25, 0.2], False),
        ([0.505, 0.5, 0.5], [0.25, 0.25, 0.2], False),
        ([0.5], [0.25, 0.25, 0.2], False),
        ([0.5, 0.5, 0.4], [0.25, 0.25, 0.2], True),
        ([0.5, 0.5, 0.5], [0.25], True),
        (None, [0.25, 0.25, 0.2], True),
        ([0.5, 0.5, 0.5], None, True),
    ],
)
def test_images_of_another_standard_than_that_of_the_weights_are_remarked_upon(mean, std, differs):
    standard = Standard((0.5, 0.5, 0.5), (0.25, 0.25, 0.2))
    known = Pretrained(facts(), network(), name="toy", frozen=True, thaw=[], standard=standard)
    said = standardised_otherwise(nn.Sequential(known), mean, std)
    assert len(said) == differs
    assert all("'dataset.mean=[0.5,0.5,0.5]' 'dataset.std=[0.25,0.25,0.2]'" in each for each in said)
    untrained = Pretrained(facts(), network(), name="toy", frozen=True, thaw=[])
    assert standardised_otherwise(untrained, mean, std) == []
