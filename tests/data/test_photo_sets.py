"""The photographs that conf/dataset names: published counts and lists, and what is said where they are absent."""

import csv
import hashlib
import io
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hydra.utils import instantiate
from PIL import Image

from fewshot_runner.cli.compose import compose
from fewshot_runner.data.source import PARTS, Source, Split
from fewshot_runner.errors import UserError


def made(name: str, root: Path, *overrides: str) -> tuple[Source, Split]:
    """The source as conf/dataset/`name`.yaml describes it, and the split that it names."""
    dataset = compose([f"dataset={name}", f"dataset.root={root}", *overrides])["dataset"]
    source = instantiate(dataset["source"])
    return source, source.split(dataset["split"])


@pytest.fixture
def archive(request, shared_data) -> Path:
    path = shared_data / request.param
    if not path.is_file():
        pytest.skip(f"needs real photographs, and {path} is absent; set FSL_DATA")
    return path


def rows(archive: Path, table: str) -> list[dict[str, str]]:
    """By the standard library."""
    with zipfile.ZipFile(archive) as file:
        return list(csv.DictReader(io.StringIO(file.read(table).decode())))


def first_by_hash(names: list[str], count: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:count]


def check_pixels(source: Source, archive: Path, indices: range) -> None:
    with zipfile.ZipFile(archive) as file:
        for index in indices:
            image = source.image(index)
            with Image.open(io.BytesIO(file.read(source.items()[index].name))) as reference:
                assert image.tobytes() == reference.convert(image.mode).tobytes()


@pytest.mark.parametrize("archive", ["caltech101_ten_animals.zip"], indirect=True)
def test_ten_animals_are_divided_as_their_lists_say(archive):
    source, split = made("animals", archive.parent)
    assert {part: len(split.images[part]) for part in PARTS} == {"train": 600, "val": 100, "test": 264}
    for part, table in (("train", "train.csv"), ("val", "valid.csv"), ("test", "test.csv")):
        listed = rows(archive, table)
        assert list(split.images[part]) == [row["filename"] for row in listed]
        assert set(split.classes[part]) == {row["label"] for row in listed}
        assert len(split.classes[part]) == 10
    labels = {item.name: item.class_name for item in source.items()}
    assert labels == {
        row["filename"]: row["label"] for t in ("train", "valid", "test") for row in rows(archive, f"{t}.csv")
    }
    assert source.name == "animals"
    check_pixels(source, archive, range(0, 964, 190))


@pytest.mark.parametrize("archive", ["cub_retrieval.zip"], indirect=True)
def test_birds_are_held_out_by_the_published_counts_and_the_fixed_rule(archive):
    source, split = made("birds", archive.parent)
    train, test = rows(archive, "train.csv"), rows(archive, "test_labels.csv")
    assert (len(train), len(test)) == (300, 200)
    assert [item.name for item in source.items()] == [
        *(f"train/{row['Image']}" for row in train),
        *(f"test/{row['Image']}" for row in test),
    ]
    assert source.unknown_label == "new_bird"
    images = defaultdict(list)
    for row in train:
        images[row["Id"]].append(f"train/{row['Image']}")
    assert len(images) == 81
    assert len(images["new_bird"]) == 60
    assert Counter(row["Id"] for row in test)["new_bird"] == 40
    held = first_by_hash(images.pop("new_bird"), 20)
    for names in images.values():
        assert 1 <= len(names) <= 5
        held += first_by_hash(names, 1) if len(names) >= 3 else []
    assert set(split.images["val"]) == set(held)
    assert set(split.images["train"]) == {f"train/{row['Image']}" for row in train} - set(held)
    assert set(split.images["test"]) == {f"test/{row['Image']}" for row in test}
    labels = {item.name: item.class_name for item in source.items()}
    assert labels == {
        f"{part}/{row['Image']}": row["Id"] for part, table in (("train", train), ("test", test)) for row in table
    }
    check_pixels(source, archive, range(0, 500, 99))


@pytest.mark.parametrize("archive", ["mini_imagenet_84.zip"], indirect=True)
def test_mini_imagenet_has_the_classes_of_the_published_lists(archive):
    published = archive.parent / "splits" / "miniimagenet" / "ravi"
    if not published.is_dir():
        pytest.skip(f"needs the published lists, and {published} is absent; set FSL_DATA")
    source, split = made("mini_imagenet", archive.parent)
    assert split.name == "ravi"
    assert {part: len(split.classes[part]) for part in PARTS} == {"train": 64, "val": 16, "test": 20}
    assert split.images is None
    files = {}
    for part in PARTS:
        with open(published / f"{part}.csv", newline="") as file:
            listed = list(csv.DictReader(file))
        assert set(split.classes[part]) == {row["label"] for row in listed}
        files |= {f"{row['label']}/{row['filename']}": part for row in listed}
    assert len(source.items()) == 64 * 200 + 16 * 100 + 20 * 200
    assert {item.part for item in source.items() if files[item.name] != item.part} == set()
    counts = Counter(item.class_name for item in source.items())
    assert {counts[name] for name in split.classes["val"]} == {100}
    assert {counts[name] for name in (*split.classes["train"], *split.classes["test"])} == {200}
    assert source.image(0).size == (84, 84)
    check_pixels(source, archive, range(0, 18_400, 3_333))


def test_whales_as_they_are_downloaded(tmp_path):
    """Seven photographs in the challenge's layout, packed as they come and unpacked."""
    folder = tmp_path / "humpback-whale-identification"
    rows = ["Image,Id", *(f"{n}.jpg,w_{n // 4}" for n in range(4)), "4.jpg,new_whale", "5.jpg,new_whale"]
    for part, numbers in (("train", range(6)), ("test", (6, 2))):
        (folder / part).mkdir(parents=True)
        for number in numbers:
            Image.new("RGB", (8, 6), (number, 0, 0)).save(folder / part / f"{number}.jpg")
    (folder / "train.csv").write_text("\n".join(rows))
    (folder / "sample_submission.csv").write_text("Image,Id\n2.jpg,new_whale w_0\n6.jpg,new_whale w_0\n")
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder))
    source, split = made("whales", tmp_path)
    assert source.unknown_label == "new_whale"
    assert split.images["test"] == ("test/2.jpg", "test/6.jpg")
    assert {item.class_name for item in source.items() if item.part == "test"} == {""}
    probes = {
        *first_by_hash([f"train/{n}.jpg" for n in range(4)], 1),
        *first_by_hash(["train/4.jpg", "train/5.jpg"], 1),
    }
    assert set(split.images["val"]) == probes
    assert len(split.images["train"]) == 4
    packed, split_of_packed = made("whales", tmp_path, "dataset.source.path=packed")
    assert (packed.items(), split_of_packed) == (source.items(), split)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("animals", "data.caltech.edu"),
        ("caltech256_animals", "scripts/prepare_caltech256"),
        ("birds", "data.caltech.edu"),
        ("whales", "kaggle.com"),
        ("mini_imagenet", "github.com"),
    ],
)
def test_absent_photographs_are_named_with_the_place_to_have_them_from(name, remedy, tmp_path):
    dataset = compose([f"dataset={name}", f"dataset.root={tmp_path}"])["dataset"]
    arguments = {key: value for key, value in dataset["source"].items() if key != "_target_"}
    with pytest.raises(
        Exception, match=rf"dataset\.root={tmp_path}: neither {tmp_path}/{arguments['path']} nor"
    ) as caught:
        instantiate(dataset["source"])
    error = caught.value.__cause__
    assert isinstance(error, UserError)
    assert remedy in str(error)
    assert "FSL_DATA" in str(error)
