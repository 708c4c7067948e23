"""Image folders: layouts, splits, identity and every way in which a folder can be wrong."""

import hashlib
import os
import threading
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot_runner.data.source import Item
from fewshot_runner.data.sources.folder import Folder
from fewshot_runner.errors import UserError


def fill(root: Path, *paths: str) -> Path:
    """Writes a 4 x 4 image at each path, whose grey value is its place in the list; other files hold a word."""
    for value, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix in (".txt", ".json"):
            file.write_text("word")
        else:
            Image.new("L", (4, 4), value).save(file, "PNG")
    return root


def names(source: Folder) -> list[str]:
    return [item.name for item in source.items()]


def test_a_folder_a_class(tmp_path):
    fill(tmp_path, "cat/b.png", "cat/A.PNG", "dog/c.JPeg", "dog/.hidden.png", "dog/note.txt", ".git/x.png")
    fill(tmp_path, "__MACOSX/cat/._b.png", "ibis/deep.webp")
    source = Folder(path=str(tmp_path))
    assert source.items() == (
        Item("cat/A.PNG", "cat"),
        Item("cat/b.png", "cat"),
        Item("dog/c.JPeg", "dog"),
        Item("ibis/deep.webp", "ibis"),
    )
    assert [np.asarray(source.image(index))[0, 0] for index in range(3)] == [1, 0, 2]
    assert source.name == tmp_path.name
    assert Folder(path=tmp_path, name="mine").name == "mine"


def test_a_group_a_class(tmp_path):
    fill(tmp_path, "Greek/a/1.png", "Greek/b/1.png", "Latin/a/1.png")
    assert Folder(path=tmp_path).items() == (
        Item("Greek/a/1.png", "Greek/a", "Greek"),
        Item("Greek/b/1.png", "Greek/b", "Greek"),
        Item("Latin/a/1.png", "Latin/a", "Latin"),
    )


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_parts_with_different_classes(tmp_path, val):
    fill(tmp_path, "train/a/1.png", "train/b/2.png", f"{val}/c/3.png", "test/d/4.png")
    source = Folder(path=tmp_path)
    assert set(source.items()) == {
        Item("train/a/1.png", "a", part="train"),
        Item("train/b/2.png", "b", part="train"),
        Item(f"{val}/c/3.png", "c", part="val"),
        Item("test/d/4.png", "d", part="test"),
    }
    split = source.split("folders")
    assert split.classes == {"train": ("a", "b"), "val": ("c",), "test": ("d",)}
    assert split.images is None


def test_parts_with_groups_and_the_same_class_in_two_parts(tmp_path):
    fill(tmp_path, "train/g/a/1.png", "train/g/b/2.png", "val/g/c/3.png", "test/g/a/4.png")
    source = Folder(path=tmp_path)
    assert Item("test/g/a/4.png", "g/a", "g", "test") in source.items()
    split = source.split("folders")
    assert split.classes == {"train": ("g/a", "g/b"), "val": ("g/c",), "test": ("g/a",)}
    assert split.images == {
        "train": ("train/g/a/1.png", "train/g/b/2.png"),
        "val": ("val/g/c/3.png",),
        "test": ("test/g/a/4.png",),
    }


def test_a_class_may_be_called_test(tmp_path):
    fill(tmp_path, "test/1.png", "cat/1.png", "train/1.png")
    assert {item.class_name for item in Folder(path=tmp_path).items()} == {"test", "cat", "train"}
    assert {item.part for item in Folder(path=tmp_path).items()} == {""}


def test_random_split_is_the_order_of_hashes(tmp_path):
    classes = [f"class {number}" for number in range(11)]
    fill(tmp_path, *(f"{name}/{number}.png" for name in classes for number in range(2)))
    split = Folder(path=tmp_path, val_fraction=0.3, test_fraction=0.2).split("random")
    ranked = sorted(classes, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert split.name == "random"
    assert split.images is None
    assert split.classes == {
        "test": tuple(sorted(ranked[:2])),
        "val": tuple(sorted(ranked[2:5])),
        "train": tuple(sorted(ranked[5:])),
    }
    other = Folder(path=tmp_path, val_fraction=0.1, test_fraction=0.2).split("random")
    assert other.classes["test"] == split.classes["test"]
    assert other.hash != split.hash


@pytest.mark.parametrize("count", [3, 4, 5])
@pytest.mark.parametrize("fractions", [(0.01, 0.01), (0.49, 0.49), (0.9, 0.05), (0.05, 0.9)])
def test_random_split_leaves_no_part_empty(tmp_path, count, fractions):
    fill(tmp_path, *(f"{number}/1.png" for number in range(count)))
    classes = Folder(path=tmp_path, val_fraction=fractions[0], test_fraction=fractions[1]).split("random").classes
    assert all(classes[part] for part in ("train", "val", "test"))
    assert sorted(classes["train"] + classes["val"] + classes["test"]) == [str(number) for number in range(count)]


def test_identity_changes_with_every_file_and_with_nothing_else(tmp_path):
    fill(tmp_path, "a/1.png", "a/note.txt", "b/2.png", "c/3.png")

    def identity() -> dict:
        return Folder(path=tmp_path).identity()

    first = identity()
    (tmp_path / "a/note.txt").write_text("another word")
    assert identity() == first == Folder(path=tmp_path, name="n", val_fraction=0.5, test_fraction=0.1).identity()
    seen = [first]
    stamp = (tmp_path / "a/1.png").stat().st_mtime_ns
    os.utime(tmp_path / "a/1.png", ns=(stamp, stamp + 1))
    seen.append(identity())
    with open(tmp_path / "b/2.png", "ab") as file:
        stamp = (tmp_path / "b/2.png").stat().st_mtime_ns
        file.write(b"\0")
    os.utime(tmp_path / "b/2.png", ns=(stamp, stamp))
    seen.append(identity())
    (tmp_path / "c/3.png").rename(tmp_path / "c/4.png")
    seen.append(identity())
    assert len({str(value) for value in seen}) == len(seen)


def test_identity_sees_what_sizes_and_times_of_files_do_not_tell(tmp_path):
    """Unpacked files are often of one time, and a program that mends a file may set its time back."""
    fill(tmp_path, "a/1.png", "b/1.png")
    for name in ("a/1.png", "b/1.png"):
        (tmp_path / name).write_bytes(name.encode())
        os.utime(tmp_path / name, ns=(0, 0))

    def identity() -> str:
        return str(Folder(path=tmp_path).identity())

    seen = [identity()]
    (tmp_path / "a").rename(tmp_path / "c"), (tmp_path / "b").rename(tmp_path / "a")
    (tmp_path / "c").rename(tmp_path / "b")  # the two have changed places
    seen.append(identity())
    (tmp_path / "mended").write_bytes(b"mended")
    os.utime(tmp_path / "mended", ns=(0, 0))
    (tmp_path / "mended").replace(tmp_path / "a/1.png")  # as editors save, and of the same size
    seen.append(identity())
    assert len(set(seen)) == 3


def test_links_are_followed_but_loops_end(tmp_path):
    fill(tmp_path / "real", "a/1.png", "b/2.png")
    fill(tmp_path / "elsewhere", "3.png")
    (tmp_path / "real/c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "real/a/up").symlink_to(tmp_path / "real")
    (tmp_path / "real/b/self").symlink_to(tmp_path / "real/b")
    found = []
    worker = threading.Thread(target=lambda: found.extend(names(Folder(path=tmp_path / "real"))), daemon=True)
    worker.start()
    worker.join(60)
    assert found == ["a/1.png", "b/2.png", "c/3.png"]


def test_a_pipe_called_like_an_image_is_no_image(tmp_path):
    fill(tmp_path, "a/1.png")
    os.mkfifo(tmp_path / "a/2.png")
    assert names(Folder(path=tmp_path)) == ["a/1.png"]


@pytest.mark.parametrize("below", ["", "mine"])
def test_an_archive_is_the_folder_that_was_packed(tmp_path, below):
    paths = [f"train/{name}/{n}.png" for name, count in (("a", 3), ("b", 3), ("new", 6)) for n in range(count)]
    root = fill(tmp_path / "data" / below, *paths, "test/a/9.png", "test/new/9.png", ".git/x.png", "test/new/n.txt")
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        for path in sorted((tmp_path / "data").rglob("*"), reverse=True):
            archive.write(path, path.relative_to(tmp_path / "data"))
    folder = Folder(path=root, unknown_label="new")
    packed = Folder(path=tmp_path / "packed.zip" / below, unknown_label="new")
    assert packed.items() == folder.items()
    assert len(packed.items()) == 14
    assert packed.name == (below or "packed")
    assert packed.unknown_label == "new"
    for index in range(14):
        assert packed.image(index).tobytes() == folder.image(index).tobytes()
    for name in ("retrieval", "images"):
        assert packed.split(name) == folder.split(name)
    assert packed.split("retrieval").classes == {
        "train": ("a", "b", "new"),
        "val": ("a", "b", "new"),
        "test": ("a", "new"),
    }
    labels = {item.name: item.class_name for item in packed.items()}
    assert sorted(labels[name] for name in packed.split("retrieval").images["val"]) == ["a", "b", "new", "new"]
    assert packed.identity() == Folder(path=tmp_path / "packed.zip" / below).identity()
    os.utime(tmp_path / "packed.zip", ns=(0, 0))
    assert packed.identity() != Folder(path=tmp_path / "packed.zip" / below).identity()


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("a/1.png", "b/c/2.png"), r"equally deep.*a/1\.png \(1 deep\); b/c/2\.png \(2 deep\)"),
        (("a/1.png", "dog/note.txt"), r"data\.zip/dog holds no image \(only note\.txt\)"),
        (("list.txt",), "holds no images"),
    ],
)
def test_layouts_of_archives_that_are_refused(tmp_path, paths, message):
    fill(tmp_path / "data", *paths)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in paths:
            archive.write(tmp_path / "data" / path, path)
    with pytest.raises(UserError, match=message) as caught:
        Folder(path=tmp_path / "data.zip").items()
    assert str(tmp_path / "data.zip") in str(caught.value)


def test_an_unknown_label_that_is_no_class(tmp_path):
    fill(tmp_path, "a/1.png", "new_bird/1.png")
    with pytest.raises(UserError, match=r"dataset\.unknown_label=new_bid is no class .*nearest name is 'new_bird'"):
        Folder(path=tmp_path, unknown_label="new_bid").items()


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ((), "holds no images"),
        (("1.png", "2.png"), r"equally deep.*1\.png \(0 deep\)"),
        (("a/1.png", "b/2.png", "cover.png"), r"equally deep.*cover\.png \(0 deep\); a/1\.png \(1 deep\)"),
        (("a/1.png", "b/c/2.png"), r"equally deep.*a/1\.png \(1 deep\); b/c/2\.png \(2 deep\)"),
        (("a/b/c/1.png", "d/b/c/1.png"), r"a/b/c/1\.png \(3 deep\)"),
        (("train/1.png", "val/2.png", "test/3.png"), r"equally deep.*test/3\.png \(0 deep\)"),
        (("a/1.png", "dog/note.txt"), r"dog holds no image \(only note\.txt\)"),
        (("g/a/1.png", "g/b/note.txt", "k/a/1.png"), r"g/b holds no image \(only note\.txt\)"),
        (("g/a/1.png", "h/note.txt"), r"h holds no image"),
        (("train/a/1.png", "val/b/1.png", "test/c/note.txt"), r"test/c holds no image"),
        (("train/a/1.png", "cat/a/1.png", "dog/a/1.png"), r"has train beside .*\(cat, dog\)"),
        (("train/a/1.png", "val/a/1.png", "valid/a/1.png"), "two mean the same part"),
    ],
)
def test_layouts_that_are_refused(tmp_path, paths, message):
    with pytest.raises(UserError, match=message) as caught:
        Folder(path=fill(tmp_path, *paths)).items()
    assert str(tmp_path) in str(caught.value)


def test_an_empty_class_folder_is_named(tmp_path):
    fill(tmp_path, "a/1.png")
    (tmp_path / "b/thumbs").mkdir(parents=True)
    with pytest.raises(UserError, match=r"/b holds no image \(nothing\); add images or remove the folder"):
        Folder(path=tmp_path).items()


def test_splits_that_are_refused(tmp_path):
    fill(tmp_path / "plain", "a/1.png", "b/1.png")
    plain = Folder(path=tmp_path / "plain")
    with pytest.raises(UserError, match="no images for train and val and test; put class folders into train/"):
        plain.split("folders")
    with pytest.raises(UserError, match="2 classes cannot be divided"):
        plain.split("random")
    with pytest.raises(UserError, match=r"dataset\.split=lake is unknown here; choose one of: folders, random, images"):
        plain.split("lake")
    fill(tmp_path / "parts", "train/a/1.png", "test/b/1.png")
    with pytest.raises(UserError, match=r"no images for val; .*dataset\.split=random"):
        Folder(path=tmp_path / "parts").split("folders")


@pytest.mark.parametrize("key", ["val_fraction", "test_fraction"])
@pytest.mark.parametrize("value", [0, 1, -0.1, float("nan"), True, "0.2", None, 0.85])
def test_fractions_that_are_refused(tmp_path, key, value):
    with pytest.raises(UserError, match=rf"dataset\.{key}="):
        Folder(path=tmp_path, **{key: value})


def test_paths_that_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=rf"does not exist; {tmp_path} is the nearest"):
        Folder(path=tmp_path / "no/such/folder")
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"data\.zip: not a readable zip file"):
        Folder(path=tmp_path / "data.zip")
    (tmp_path / "data.txt").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"data\.txt is a file; give a folder or a zip archive"):
        Folder(path=tmp_path / "data.txt")
    with pytest.raises(
        UserError, match=rf"^dataset\.root={tmp_path}: neither {tmp_path}/x nor x\.zip .*; fetch it, or"
    ):
        Folder(path="x", root=tmp_path, remedy="fetch it")
    fill(tmp_path / "data", "a/1.png")
    (tmp_path / "data/a/gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"a/gone\.png cannot be read \(No such file"):
        Folder(path=tmp_path / "data").items()

    def forbidden(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", forbidden)  # the superuser may read everything, so that chmod shows nothing
    with pytest.raises(UserError, match=r"data cannot be read \(Permission denied\)"):
        Folder(path=tmp_path / "data").items()


def test_a_damaged_image_is_named_with_its_path(tmp_path):
    fill(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "b/2.png").write_bytes((tmp_path / "b/2.png").read_bytes()[:40])
    source = Folder(path=tmp_path)
    assert source.image(0).size == (4, 4)
    with pytest.raises(UserError, match=f"^{tmp_path}/b/2.png: "):
        source.image(1)


def test_a_single_folder_around_all_of_it_is_passed_over(tmp_path):
    """As an archive of a folder has one: the same classes, the same images, the same division."""
    paths = [f"{kind}/{number}.png" for kind in ("ant", "bee", "cow") for number in range(9)]
    fill(tmp_path / "plain", *paths)
    fill(tmp_path / "wrapped", *(f"mine/{path}" for path in paths))
    with zipfile.ZipFile(tmp_path / "wrapped.zip", "w") as archive:
        for path in paths:
            archive.write(tmp_path / "plain" / path, f"mine/{path}")
    plain, wrapped, zipped = (Folder(path=tmp_path / name) for name in ("plain", "wrapped", "wrapped.zip"))
    assert plain.items() == wrapped.items() == zipped.items()
    assert plain.items()[0] == Item("ant/0.png", "ant")
    assert plain.split("images").images == zipped.split("images").images
    for path in (tmp_path / "wrapped", tmp_path / "wrapped.zip"):
        assert Folder(path=path).image(5).getpixel((0, 0)) == plain.image(5).getpixel((0, 0))  # asked for first of all
        assert Folder(path=path).checksum(5) == plain.checksum(5)
    fill(tmp_path / "parted", *(f"mine/{part}/{path}" for part in ("train", "val", "test") for path in paths))
    assert {item.part for item in Folder(path=tmp_path / "parted").items()} == {"train", "val", "test"}


def test_a_letter_with_an_accent_is_one_letter_however_it_is_written(tmp_path):
    names = [unicodedata.normalize(form, "Löwe") for form in ("NFC", "NFD")]
    for number, name in enumerate(names):
        fill(tmp_path / f"{number}", f"{name}/1.png", "Bison/1.png")
    first, second = (Folder(path=tmp_path / f"{number}", unknown_label=names[1 - number]) for number in range(2))
    assert [item.class_name for item in first.items()] == [item.class_name for item in second.items()]
    assert first.unknown_label == second.unknown_label == names[0]


def test_training_and_testing_are_parts(tmp_path):
    fill(tmp_path, *(f"{part}/a/{number}.png" for part in ("Training", "validation", "testing") for number in range(2)))
    assert {item.part for item in Folder(path=tmp_path).items()} == {"train", "val", "test"}
    assert {item.class_name for item in Folder(path=tmp_path).items()} == {"a"}


def test_a_division_that_is_passed_over_and_formats_that_are_not_read_are_told(tmp_path):
    fill(tmp_path, *(f"{part}/{part}{number}/1.png" for part in ("train", "val", "test") for number in range(3)))
    for number in range(2):
        (tmp_path / "train" / "train0" / f"IMG_{number}.NEF").write_bytes(b"II*")
    (tmp_path / "train" / "train0" / "notes.txt").write_text("")
    source = Folder(path=tmp_path)
    division, formats = source.remarks("random")
    assert division == "the data's own train, val and test are ignored; dataset.split=folders takes them"
    assert formats == "left out: pictures in formats that are not read (2 .nef): save as JPEG"
    assert source.remarks("folders") == [formats]
