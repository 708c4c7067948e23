"""torchvision's networks as backbones, against torchvision's own models with their classifiers."""

import urllib.error
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.models.torchvision_backbone import Torchvision

RESNET18 = "resnet18-f37072fd.pth"  # the file of IMAGENET1K_V1


def facts(channels: int = 3, size: int = 64) -> Facts:
    return Facts(image_shape=(channels, size, size), n_classes=5, n_way=5)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of torch hub's, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)

    def unplugged(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr("torch.hub.urlopen", unplugged)
    return folder


@pytest.mark.parametrize(
    ("name", "size", "features", "classifier"),
    [
        ("resnet18", 64, 512, "fc"),
        ("resnet50", 64, 2048, "fc"),
        ("mobilenet_v3_small", 64, 1024, "classifier.3"),
        ("efficientnet_b0", 64, 1280, "classifier.1"),
        ("convnext_tiny", 64, 768, "classifier.2"),
        ("alexnet", 224, 4096, "classifier.6"),
        ("shufflenet_v2_x0_5", 64, 1024, "fc"),
    ],
)
def test_the_full_model_is_its_classifier_on_these_features(name, size, features, classifier):
    torch.manual_seed(3)
    full = models.get_model(name, weights=None).eval()
    torch.manual_seed(3)
    model = Torchvision(facts(size=size), name=name).eval()
    assert model.out_features == features
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(full.get_submodule(classifier)(model(images)), full(images), rtol=1e-4, atol=1e-5)
    count = sum(parameter.numel() for parameter in model.parameters())
    whole = models.get_model_weights(name).DEFAULT.meta["num_params"]  # published, with 1,000 classes
    assert count == whole - 1000 * (features + 1)


def test_training_puts_no_dropout_on_the_features():
    model = Torchvision(facts(), name="mobilenet_v2")
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())


@pytest.mark.parametrize("with_counters", [True, False])  # published files are older than num_batches_tracked
def test_published_weights_come_from_the_folder_of_torch_hub(hub, with_counters):
    torch.manual_seed(5)
    full = models.resnet18()
    for value in full.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand_like(value))  # no value at its default
    state = {name: value for name, value in full.state_dict().items() if with_counters or "num_batches" not in name}
    torch.save(state, hub / RESNET18)
    model = Torchvision(facts(), name="resnet18", weights="IMAGENET1K_V1", frozen=True)
    loaded = model.network.state_dict()
    assert (model.standard.mean, model.standard.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert set(state) - set(loaded) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(loaded[name], value) for name, value in state.items() if name in loaded)


def test_untrained_is_the_same_network_without_a_download(hub):
    torch.save(models.resnet18().state_dict(), hub / RESNET18)
    trained = Torchvision(facts(), name="resnet18", weights="IMAGENET1K_V1", frozen=True, thaw=["layer4"])
    (hub / RESNET18).unlink()
    rebuilt = Torchvision(facts(), name="resnet18", weights=None, frozen=True, thaw=["layer4"])
    rebuilt.load_state_dict(trained.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(rebuilt.eval()(images), trained.eval()(images))


def test_without_a_network_the_user_learns_where_to_put_the_file(hub):
    with pytest.raises(UserError, match=r"no network in this test.*at .*resnet18-f37072fd\.pth.*model\.weights=null"):
        Torchvision(facts(), name="resnet18", weights="IMAGENET1K_V1")


def test_a_file_that_holds_more_than_tensors_is_not_unpickled(hub, tmp_path):
    torch.save({"fc.weight": Path("pickled")}, hub / RESNET18)
    with pytest.raises(UserError, match=r"model\.weights=IMAGENET1K_V1: cannot load .*UnpicklingError"):
        Torchvision(facts(), name="resnet18", weights="IMAGENET1K_V1")


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_a_damaged_or_foreign_file_is_refused(hub, content):
    if content is None:
        torch.save(models.resnet34().state_dict(), hub / RESNET18)
    else:
        (hub / RESNET18).write_bytes(content)
    with pytest.raises(UserError, match=RESNET18):
        Torchvision(facts(), name="resnet18", weights="IMAGENET1K_V1")


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet19", None, r"model\.name=resnet19: .*resnet18"),
        ("fcn_resnet50", None, r"model\.name=fcn_resnet50"),  # segmentation
        ("resnet18", "IMAGENET1K_V2", r"model\.weights=IMAGENET1K_V2: for resnet18 there is IMAGENET1K_V1"),
        ("squeezenet1_1", None, r"model\.name=squeezenet1_1: it ends in no linear layer"),
    ],
)
def test_what_there_is_not_is_refused(name, weights, message):
    with pytest.raises(UserError, match=message):
        Torchvision(facts(), name=name, weights=weights)


def test_grey_images_are_refused_with_the_remedy():
    with pytest.raises(UserError, match=r"dataset\.channels=3"):
        Torchvision(facts(channels=1), name="resnet18")
