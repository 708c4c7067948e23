"""timm's networks as backbones, against timm's own models with their classifiers."""

import sys

import pytest
import torch

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.models.timm_backbone import Timm

timm = pytest.importorskip("timm", reason="needs timm: pip install 'fewshot-runner[timm]'")


def facts(channels: int = 3, size: int = 64) -> Facts:
    return Facts(image_shape=(channels, size, size), n_classes=5, n_way=5)


@pytest.mark.parametrize(
    ("name", "features"), [("resnet18", 512), ("mobilenetv3_small_050", 1024), ("convnext_atto", 320)]
)
def test_the_full_model_is_its_classifier_on_these_features(name, features):
    model = Timm(facts(), name=name).eval()
    full = timm.create_model(name, pretrained=False).eval()
    missing = full.load_state_dict(model.network.state_dict(), strict=False).missing_keys
    classifier = missing[0].rpartition(".")[0]
    assert set(missing) == {f"{classifier}.weight", f"{classifier}.bias"}
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(full.get_submodule(classifier)(model(images)), full(images))
    assert model.out_features == features


def test_frozen_parts_and_thawed_parts():
    model = Timm(facts(), name="resnet18", frozen=True, thaw=["layer4"])
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trains == {name for name, _ in model.named_parameters() if name.startswith("network.layer4.")}
    assert len(trains) == 15  # two blocks of two convolutions and batch norms (6 each), and one of 1x1 (3)


@pytest.mark.parametrize(("weights", "asked"), [("default", "resnet18"), ("a1_in1k", "resnet18.a1_in1k")])
def test_the_tag_is_asked_for_and_a_failed_download_says_what_to_do(weights, asked, monkeypatch):
    names = []

    def unplugged(name: str, *, pretrained: bool, num_classes: int) -> None:
        assert pretrained
        names.append(name)
        raise ConnectionError("no network in this test\nand more lines")

    monkeypatch.setattr(timm, "create_model", unplugged)
    with pytest.raises(UserError, match=rf"cannot load {asked} \(ConnectionError: no network in this test\); .*null"):
        Timm(facts(), name="resnet18", weights=weights)
    assert names == [asked]


def test_downloaded_weights_say_how_their_images_were_standardised(monkeypatch):
    make = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, *, pretrained, num_classes: make(name, num_classes=num_classes)
    )
    standard = Timm(facts(), name="mobilenetv3_small_050", weights="default").standard
    assert (standard.mean, standard.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert Timm(facts(), name="tf_efficientnet_lite0", weights="default").standard.mean == (0.5, 0.5, 0.5)
    assert Timm(facts(), name="mobilenetv3_small_050").standard is None


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet19", None, r"model\.name=resnet19: .*resnet18"),
        ("resnet18.a1_in1k", None, r"model\.name=resnet18 model\.weights=a1_in1k"),
        ("resnet18", "imagenet", r"model\.weights=imagenet: for resnet18 there is default, .*a1_in1k"),
    ],
)
def test_what_there_is_not_is_refused(name, weights, message):
    with pytest.raises(UserError, match=message):
        Timm(facts(), name=name, weights=weights)


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'fewshot-runner\[timm\]'"):
        Timm(facts(), name="resnet18")
