"""Tables in folders and archives, one a part, in the layouts of real data sets; and real photographs."""

import csv
import hashlib
import os
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot_runner.data.decode import fit
from fewshot_runner.data.source import Item
from fewshot_runner.data.sources.csv import Csv
from fewshot_runner.errors import UserError


@pytest.fixture(params=["folder", "zip"])
def layout(request, tmp_path):
    """Writes files and gives the path of the folder, or of an archive of them; an image's grey value is its place."""

    def write(files: dict[str, str | int]) -> Path:
        root = tmp_path / "data"
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, int):
                Image.new("L", (4, 4), content).save(root / name)
            else:
                (root / name).write_text(content)
        if request.param == "folder":
            return root
        with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
            for name in files:
                archive.write(root / name, name)
        shutil.rmtree(root)
        return tmp_path / "data.zip"

    return write


def greys(source: Csv) -> list[int]:
    return [int(np.asarray(source.image(index))[0, 0]) for index in range(len(source.items()))]


KAGGLE = {
    "train.csv": "Image,Id\n1.png,w_1\n2.png,w_2\n3.png,new\n4.png,w_1\n5.png,w_1\n6.png,new\n",
    "answers.csv": "Image,Id\n1.png,w_2\n9.png,new\n",
    **{f"train/{n}.png": n for n in range(1, 7)},
    **{f"test/{n}.png": 10 + n for n in (9, 1, 8)},
    "test/notes.txt": "x",
}


COLUMNS = {"image_column": "Image", "label_column": "Id"}


def test_a_table_a_part_with_images_in_a_folder_a_part(layout):
    """Both parts have a 1.png."""
    tables = {"train": "train.csv", "test": "answers.csv", "val": None}
    source = Csv(path=layout(KAGGLE), tables=tables, image_path="{part}/{image}", unknown_label="new", **COLUMNS)
    labels = ["w_1", "w_2", "new", "w_1", "w_1", "new"]
    assert source.items() == (
        *(Item(f"train/{n}.png", label, "", "train") for n, label in enumerate(labels, start=1)),
        Item("test/1.png", "w_2", "", "test"),
        Item("test/9.png", "new", "", "test"),
    )
    assert greys(source) == [1, 2, 3, 4, 5, 6, 11, 19]
    assert source.name == "data"
    assert source.unknown_label == "new"
    split = source.split("retrieval")
    assert split.images["test"] == ("test/1.png", "test/9.png")
    held = {hashlib.sha256(f"train/{n}.png".encode()).hexdigest(): f"train/{n}.png" for n in (1, 4, 5)}
    strangers = {hashlib.sha256(f"train/{n}.png".encode()).hexdigest(): f"train/{n}.png" for n in (3, 6)}
    assert set(split.images["val"]) == {held[min(held)], strangers[min(strangers)]}  # a third of 2 is nearly 1
    with pytest.raises(UserError, match="=tables finds no images for val; add such tables"):
        source.split("tables")


def test_a_test_folder_without_labels(layout):
    path = layout(KAGGLE)
    source = Csv(
        path=path, tables={"train": "train.csv"}, unlabelled="test", image_path="{part}/{image}", unknown_label="new",
        **COLUMNS,
    )  # fmt: skip
    assert source.items()[6:] == tuple(Item(f"test/{n}.png", "", "", "test") for n in (1, 8, 9))
    assert greys(source)[6:] == [11, 18, 19]
    split = source.split("retrieval")
    assert split.images["test"] == ("test/1.png", "test/8.png", "test/9.png")
    assert split.classes["test"] == ("",)
    assert not {name for part in ("train", "val") for name in split.images[part] if name.startswith("test")}
    assert {c for names in source.split("images").classes.values() for c in names} == {"w_1", "w_2"}
    alone = Csv(path=path / "train.csv", unlabelled="test", images=path / "train", **COLUMNS)
    with pytest.raises(UserError, match=r"dataset\.unlabelled=test: .*/train/test holds no images"):
        alone.items()
    with pytest.raises(UserError, match=r"3 images of dataset\.unlabelled=train have labels: train/1\.png; train/4"):
        Csv(
            path=layout({**KAGGLE, "train.csv": "Image,Id\n1.png,a\n4.png,a\n5.png,b\n"}),
            tables={"train": "train.csv"}, unlabelled="train", image_path="{part}/{image}", **COLUMNS,
        ).items()  # fmt: skip
    with pytest.raises(UserError, match=r"dataset\.unlabelled=test: the test images have labels already"):
        Csv(path=path, tables={"train": "train.csv", "test": "answers.csv"}, unlabelled="test")


def test_tables_that_name_parts_in_their_own_words_and_images_by_label(layout):
    files = {
        **{f"{part}.csv": f"image,label\n{n},c{n}\n" for n, part in enumerate(("train", "valid", "test"))},
        **{f"{part}/c{n}/{n}.png": n for n, part in enumerate(("train", "valid", "test"))},
    }
    tables = {part: f"{part}.csv" for part in ("train", "valid", "test")}
    source = Csv(path=layout(files), tables=tables, image_path="{part}/{label}/{image}.png", declared="mine")
    assert [(item.name, item.part) for item in source.items()] == [
        ("train/c0/0.png", "train"),
        ("valid/c1/1.png", "val"),
        ("test/c2/2.png", "test"),
    ]
    assert greys(source) == [0, 1, 2]
    split = source.split("mine")
    assert (split.name, split.images) == ("mine", None)
    assert split.classes == {"train": ("c0",), "val": ("c1",), "test": ("c2",)}
    with pytest.raises(UserError, match="=tables is unknown here; choose one of: mine, random"):
        source.split("tables")


def test_one_table_inside_and_images_apart(layout, tmp_path):
    files = {"lists/t.csv": "image,label,s\na.png,cat,Train\nb.png,dog,test\n", "p/Train/a.png": 3, "p/test/b.png": 5}
    path = layout(files)
    source = Csv(path=path / "lists/t.csv", images=path / "p", image_path="{part}/{image}", split_column="s")
    assert [(item.name, item.part) for item in source.items()] == [("Train/a.png", "train"), ("test/b.png", "test")]
    assert greys(source) == [3, 5]
    assert source.name == "t"
    beside = tmp_path / "beside.csv"
    beside.write_text("image,label\np/test/b.png,dog\n")
    assert greys(Csv(path=beside, images=path)) == [5]
    assert greys(Csv(path="beside.csv", root=tmp_path, images=path.name)) == [5]
    with pytest.raises(UserError, match=r"1 images are not below .*/lists: p/test/b\.png \(line 2\)"):
        Csv(path=beside, images=path / "lists").items()


def test_groups_do_not_divide_strangers(table):
    path = table("image,label,pod\na.png,w,north\nb.png,new,north\nc.png,new,south\n")
    source = Csv(path=path, group_column="pod", unknown_label="new")
    assert source.items() == (Item("a.png", "north/w", "north"), Item("b.png", "new"), Item("c.png", "new"))


def test_rows_are_told_by_table_and_line(layout):
    files = {"a.csv": "image,label\n1.png,cat\n2.png,\n", "b.csv": "image,label\n1.png,cat\n", "1.png": 0, "2.png": 0}
    path = layout(files)
    tables = {"train": "a.csv", "test": "b.csv"}
    with pytest.raises(UserError, match=rf"^{path}: 1 cells are empty: line 3 of a\.csv has no label"):
        Csv(path=path, tables=tables).items()
    path = layout({**files, "a.csv": files["b.csv"]})
    with pytest.raises(UserError, match=r"1\.png is 'cat' in train in line 2 of a\.csv, 'cat' in test in line 2 of b"):
        Csv(path=path, tables=tables).items()
    with pytest.raises(UserError, match=r"\(line 2 of b\.csv\).*dataset\.image_path"):
        Csv(path=path, tables=tables, image_path="{part}/{image}").items()
    with pytest.raises(UserError, match=r"c\.csv"):
        Csv(path=path, tables={"train": "c.csv"}).items()
    with pytest.raises(UserError, match=rf"{path}/b\.csv: dataset\.label_column=Id is no column"):
        Csv(path=path, tables={"test": "b.csv"}, label_column="Id").items()


def test_tables_that_contradict_other_settings(table, tmp_path):
    path = table("image,label,s\na.png,cat,train\n")
    with pytest.raises(UserError, match=r"dataset\.tables=.*'dev'.*: name each of train, val and test once at most"):
        Csv(path=tmp_path, tables={"dev": "table.csv"})
    with pytest.raises(UserError, match="once at most"):
        Csv(path=tmp_path, tables={"val": "table.csv", "valid": "table.csv"})
    with pytest.raises(UserError, match=r"dataset\.split_column=s both tell the parts; leave one out"):
        Csv(path=tmp_path, tables={"train": "table.csv"}, split_column="s")
    with pytest.raises(UserError, match=r"dataset\.path=.*table\.csv is a file; give a folder or a zip archive"):
        Csv(path=path, tables={"train": "table.csv"})
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.write(path, "table.csv")
    with pytest.raises(
        UserError, match=r"t\.zip is an archive; give a CSV file, or name those in it with dataset\.tables"
    ):
        Csv(path=tmp_path / "t.zip")
    with pytest.raises(UserError, match=r"image_path=.*\{part\} is not known, as there are no dataset\.tables and no"):
        Csv(path=path, image_path="{part}/{image}")
    with pytest.raises(UserError, match=r"\{group\} is not known, as there is no dataset\.group_column"):
        Csv(path=path, image_path="{group}/{image}")
    source = Csv(path=table("image,label\na.png,w_1\nb.png,new_whale\n"), unknown_label="new_whal")
    with pytest.raises(UserError, match=r"dataset\.unknown_label=new_whal is no label .*nearest name is 'new_whale'"):
        source.items()


def test_identity_covers_the_archive_and_its_members(tmp_path):
    def identity(grey: int, stamp: int = 0) -> str:
        picture = tmp_path / "a.png"
        Image.new("L", (4, 4), grey).save(picture)
        with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
            archive.writestr("t.csv", "image,label\na.png,cat\n")
            archive.write(picture, "a.png")
        os.utime(tmp_path / "t.zip", ns=(stamp, stamp))
        return str(Csv(path=tmp_path / "t.zip", tables={"train": "t.csv"}).identity())

    assert identity(7) == identity(7)
    assert len({identity(7), identity(8), identity(7, stamp=1)}) == 3


def test_a_damaged_member_is_named(layout):
    path = layout({"t.csv": "image,label\na.png,cat\n", "a.png": 5})
    if path.is_dir():
        (path / "a.png").write_bytes(b"")
    else:
        with zipfile.ZipFile(path) as archive:
            start = archive.getinfo("a.png").header_offset + 30 + len("a.png")
        content = bytearray(path.read_bytes())
        content[start + 20] ^= 1
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{path}.*a\.png.*(damaged|empty)"):
        Csv(path=path, tables={"train": "t.csv"}).image(0)


@pytest.fixture(scope="module")
def animals(shared_data, tmp_path_factory):
    archive = shared_data / "caltech101_ten_animals.zip"
    if not archive.is_file():
        pytest.skip(f"needs real photographs, and {archive} is absent; set FSL_DATA")
    root = tmp_path_factory.mktemp("animals")
    with zipfile.ZipFile(archive) as file:
        file.extractall(root)
    return root


@pytest.mark.parametrize(("part", "count"), [("train", 60), ("valid", 10)])
def test_the_lists_of_ten_animals(animals, part, count):
    items = Csv(path=animals / f"{part}.csv", image_column="filename").items()
    assert set(Counter(item.class_name for item in items).values()) == {count}
    assert len({item.class_name for item in items}) == 10


def test_photographs_by_one_list_with_parts(animals):
    """The three lists joined into one, which puts every class into every part; pixels against Pillow's own."""
    rows = [["file", "animal", "part"]]
    for part in ("train", "valid", "test"):
        with open(animals / f"{part}.csv", newline="") as file:
            rows += [[row["filename"], row["label"], part] for row in csv.DictReader(file)]
    with open(animals / "all.csv", "w", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    source = Csv(path=animals / "all.csv", image_column="file", label_column="animal", split_column="part")
    split = source.split("column")
    assert [len(split.images[part]) for part in ("train", "val", "test")] == [600, 100, 264]
    assert [item.name for item in source.items()] == [row[0] for row in rows[1:]]
    for index in range(0, 964, 120):
        image = source.image(index)
        with Image.open(animals / rows[index + 1][0]) as reference:
            np.testing.assert_array_equal(np.asarray(image), np.asarray(reference.convert(image.mode)))
        small = fit(image, 28, 3)
        assert small.shape == (3, 28, 28)
        assert abs(small.mean() - fit(image, 84, 3).mean()) < 3
