"""Which pictures a folder holds, those that a data set of the same files holds; and how many are dealt with at once."""

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewshot_runner.data import decode
from fewshot_runner.data.batch import Episode
from fewshot_runner.data.sources.folder import Folder
from fewshot_runner.data.transforms import Standardise
from fewshot_runner.engine import predict
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.predict import ImagePipeline, pictures_of
from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.methods.anil import Anil
from fewshot_runner.methods.base import Method, evaluating
from fewshot_runner.methods.maml import Maml
from fewshot_runner.methods.prototypical import Prototypical
from fewshot_runner.methods.triplet import Triplet
from fewshot_runner.models.conv4 import Conv4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes among what other programs leave behind; a folder may be called like a picture, or be a link."""
    for name in ("cat/b.png", "cat/A.PNG", "dir.png/c.jpg", "dir.png/.hidden/d.png", "__MACOSX/cat/e.png"):
        file = tmp_path / "here" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(file, "PNG")
    (tmp_path / "here" / "cat" / "._b.png").write_bytes(b"no picture")
    (tmp_path / "here" / "cat" / "note.txt").write_text("word")
    (tmp_path / "elsewhere").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "elsewhere" / "f.png")
    (tmp_path / "here" / "linked").symlink_to(tmp_path / "elsewhere")
    return tmp_path / "here"


def test_a_folder_holds_the_pictures_that_a_data_set_of_it_holds(folder: Path) -> None:
    expected = [folder / name for name in ("cat/A.PNG", "cat/b.png", "dir.png/c.jpg", "linked/f.png")]
    assert pictures_of([folder]) == (expected, [])
    assert [folder / item.name for item in Folder(path=folder).items()] == expected


def test_pictures_and_folders_come_in_the_order_given(folder: Path) -> None:
    single = folder / "linked" / "f.png"
    expected = [single, folder / "cat" / "A.PNG", folder / "cat" / "b.png"]
    assert pictures_of([single, folder / "cat"]) == (expected, [])


def test_a_folder_without_pictures_is_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="empty: there is no picture in this folder"):
        pictures_of([folder / "empty"])
    (folder / "empty" / "raw.NEF").write_bytes(b"II*")
    with pytest.raises(UserError, match=r"empty: left out: pictures in formats that are not read \(1 \.nef\)"):
        pictures_of([folder / "empty"])


FACTS = Facts(image_shape=(1, 16, 16), n_classes=3, n_way=3)
METHODS = {
    "prototypical": lambda: Prototypical(Conv4(FACTS, widths=(4, 4)), distance="euclidean"),
    "anil": lambda: Anil(Conv4(FACTS, widths=(4, 4)), inner_lr=0.5, inner_steps=2, test_steps=2),
    "maml": lambda: Maml(Conv4(FACTS, widths=(4, 4)), inner_lr=0.5, inner_steps=1, test_steps=1, order=1),
    "triplet": lambda: Triplet(Conv4(FACTS, widths=(4, 4)), distance="l2", margin=0.3, mining="batch_hard"),
}


@pytest.fixture(params=sorted(METHODS))
def method(request: pytest.FixtureRequest) -> Method:
    torch.manual_seed(0)
    return METHODS[request.param]()


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> ImagePipeline:
    """It takes two images at once."""
    monkeypatch.setattr(predict, "PIXELS_AT_ONCE", 2 * 16 * 16 + 1)
    monkeypatch.setattr(predict, "COMPARISONS_AT_ONCE", 7)  # of seven examples with one query
    standardise = Standardise(invert=False, centre=False, mean=[0.5], std=[0.5])
    return ImagePipeline(FACTS.image_shape, None, "bilinear", standardise, Hardware(device="cpu", threads=1))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Three classes of 3, 2 and 2 examples, and five queries, all of 40 x 40 pixels."""
    draws = np.random.default_rng(0)
    for place, count in {"support/a": 3, "support/b": 2, "support/c": 2, "asked": 5}.items():
        folder = tmp_path / place
        folder.mkdir(parents=True)
        for number in range(count):
            Image.fromarray(draws.integers(0, 255, (40, 40), dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path


@pytest.fixture
def most_alive(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many decoded photographs there were at any time, the largest number last."""
    made: list[weakref.ref[Image.Image]] = []
    most = [0]
    original = decode._to_8_bit

    def watched(*arguments: object) -> Image.Image:
        picture = original(*arguments)
        made.append(weakref.ref(picture))
        most.append(max(most[-1], sum(each() is not None for each in made)))
        return picture

    monkeypatch.setattr(decode, "_to_8_bit", watched)
    return most


def test_many_examples_and_pictures_are_dealt_with_a_few_at_a_time(
    method: Method, pipeline: ImagePipeline, photographs: Path, most_alive: list[int]
) -> None:
    support, asked = Folder(path=photographs / "support"), pictures_of([photographs / "asked"])[0]
    sizes: list[int] = []
    with method.backbone.register_forward_pre_hook(lambda _, images: sizes.append(len(images[0]))):
        predictions, refused = predict.predict(method, support, asked, pipeline=pipeline, top=3)
    assert refused == []
    assert most_alive[-1] <= 2  # the next is decoded before the last is let go
    assert max(sizes) == (7 if isinstance(method, Maml) else 2)  # MAML fits itself to all examples in one

    def images(files: list[Path]) -> torch.Tensor:
        seen = [Image.open(file).resize((16, 16), Image.Resampling.BILINEAR) for file in files]
        return (torch.from_numpy(np.stack(seen))[:, None].float() / 255 - 0.5) / 0.5

    examples = sorted((photographs / "support").rglob("*.png"))
    labels = torch.tensor([[0, 0, 0, 1, 1, 2, 2]])
    with evaluating(method), torch.no_grad():
        episode = Episode(images(examples)[None], labels, images(asked)[None], torch.zeros(1, 5).long(), n_way=3)
        expected = method.classify(episode)[0].softmax(-1)  # (5, 3)
    found = torch.tensor([[dict(each.ranking)[name] for name in "abc"] for each in predictions])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert [each.image for each in predictions] == list(map(str, asked))


def test_all_examples_that_cannot_be_read_are_named(pipeline: ImagePipeline, photographs: Path) -> None:
    for name in ("a/1.png", "c/0.png"):
        (photographs / "support" / name).write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"(?s)a/1\.png: this is no image.*c/0\.png: this is no image"):
        predict.predict(METHODS["prototypical"](), Folder(path=photographs / "support"), [], pipeline=pipeline, top=3)
