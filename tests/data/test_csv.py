"""CSV files: delimiters, columns, splits, real photographs, and errors that name the line."""

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

SHARED = Path(os.environ.get("FSL_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture
def table(tmp_path):
    """Writes a CSV file, and an image for each of the paths a.png to d.png whose grey value is its place."""
    for value, name in enumerate("abcd"):
        Image.new("L", (4, 4), value).save(tmp_path / f"{name}.png")

    def write(text: str | bytes, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def error(path: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        Csv(path=path, **options).items()
    assert str(caught.value).startswith(f"{path}: ") or str(caught.value).startswith(f"{path} ")
    return str(caught.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encode", [lambda text: text.encode(), lambda text: b"\xef\xbb\xbf" + text.encode()])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_delimiters_and_encodings(table, delimiter, encode, ending):
    rows = (("image", " label", "note"), ("b.png", "käse", "x"), ("", "", ""), ("./a.png", " dog ", "y"), ())
    source = Csv(path=table(encode(ending.join(delimiter.join(row) for row in rows))))
    assert source.items() == (Item("b.png", "käse"), Item("a.png", "dog"))
    assert [np.asarray(source.image(index))[0, 0] for index in (0, 1)] == [1, 0]
    assert source.name == "table"


def test_the_delimiter_is_the_one_that_finds_the_columns(table):
    path = table('id;image;label;"a, b, c, d, e"\n1;a.png;cat;x\n')
    assert Csv(path=path).items() == (Item("a.png", "cat"),)
    path = table('image,label\na.png,"cat; the, tame one"\n')
    assert Csv(path=path).items() == (Item("a.png", "cat; the, tame one"),)


def test_columns_groups_and_parts(table):
    path = table("file,kind,family,part\na.png,lion,cats,train\nb.png,lion,dogs,Valid\nc.png,wolf,dogs,test\n")
    source = Csv(
        path=path, image_column="file", label_column="kind", group_column="family", split_column="part", name="zoo"
    )
    assert source.name == "zoo"
    assert source.items() == (
        Item("a.png", "cats/lion", "cats", "train"),
        Item("b.png", "dogs/lion", "dogs", "val"),
        Item("c.png", "dogs/wolf", "dogs", "test"),
    )
    split = source.split("column")
    assert split.classes == {"train": ("cats/lion",), "val": ("dogs/lion",), "test": ("dogs/wolf",)}
    assert split.images is None
    drawn = source.split("random").classes
    assert sorted(drawn["train"] + drawn["val"] + drawn["test"]) == ["cats/lion", "dogs/lion", "dogs/wolf"]


def test_a_class_in_several_parts_is_divided_by_image(table):
    rows = "a.png,cat,train\nb.png,cat,validation\nc.png,cat,test\nd.png,dog,train\n"
    split = Csv(path=table("image,label,split\n" + rows), split_column="split").split("column")
    assert split.classes == {"train": ("cat", "dog"), "val": ("cat",), "test": ("cat",)}
    assert split.images == {"train": ("a.png", "d.png"), "val": ("b.png",), "test": ("c.png",)}


def test_images_elsewhere_and_a_row_said_twice(table, tmp_path):
    (tmp_path / "lists").mkdir()
    path = table("image,label\na.png,cat\n./x/../a.png,cat\n", "lists/t.csv")
    assert "1 images are not below" in error(path)
    assert Csv(path=path, images=tmp_path).items() == (Item("a.png", "cat"),)
    path = table(f"image,label\n{tmp_path}/b.png,cat\n", "lists/t.csv")
    assert np.asarray(Csv(path=path).image(0))[0, 0] == 1


def test_identity_covers_rows_and_files(table, tmp_path):
    text = "image,label,split\na.png,cat,train\nb.png,dog,test\n"

    def identity(text: str) -> str:
        return str(Csv(path=table(text), split_column="split").identity())

    seen = [identity(text)]
    assert identity(text + "\n") == seen[0]
    seen += [identity(text.replace("dog", "fox")), identity(text.replace("test", "val"))]
    seen += [identity(text.replace("b.png", "c.png"))]
    stamp = (tmp_path / "a.png").stat().st_mtime_ns
    os.utime(tmp_path / "a.png", ns=(stamp, stamp + 1))
    seen.append(identity(text))
    assert len(set(seen)) == len(seen)


def test_missing_columns(table):
    path = table("Image,labels,extra\na.png,cat,1\n")
    message = error(path)
    assert "dataset.image_column=image is no column (the nearest name is 'Image')" in message
    assert "one of: Image, labels, extra" in message
    assert "label is no column (the nearest name is 'labels')" in error(path, image_column="Image")
    assert "dataset.split_column=zzz is no column; set" in error(
        path, image_column="Image", label_column="labels", split_column="zzz"
    )
    assert "two columns are called 'label'" in error(table("image,label,label\na.png,cat,dog\n"))


def test_missing_images_are_counted_and_the_first_named(table):
    rows = "".join(f"{number}.png,cat\n" for number in range(5))
    message = error(table("image,label\na.png,cat\n" + rows))
    assert "5 images are not below" in message
    assert "0.png (line 3); 1.png (line 4); 2.png (line 5); and 2 more" in message
    assert "dataset.images" in message
    assert "1 images" in error(table("image,label\n.,cat\n"))  # a folder is no image


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\ufeff\n \n", "is empty"),
        ("image,label,split\n", "a header but no rows"),
        ("image,label,split\na.png,cat,train\nb.png,,train\n,dog,test\n", "2 cells are empty: line 3 has no label; "),
        ("image,label,split\n\nb.png\n", "line 3 has no label and no split"),
        ("image,label,split\na.png,cat,train\nb.png,cat,dev\n", "line 3 says 'dev'"),
        (
            "image,label,split\na.png,cat,train\nb.png,cat,train\na.png,dog,train\n",
            "a.png is 'cat' in train in line 2, 'dog' in train in line 4",
        ),
        (
            "image,label,split\na.png,cat,train\na.png,cat,test\n",
            "a.png is 'cat' in train in line 2, 'cat' in test in line 3",
        ),
        ("image,label,split\na.png,cat,train,\nb.png,cat,tame,train\n", "line 3 has 4 cells where the header has 3"),
        ('image,label,split\na.png,"cat,train\nb.png,cat,train\n', "is broken"),
        (b"image,label,split\na.png,caf\xe9,train\n", "line 2 is not UTF-8"),
        ("image,label,split\na.png,cat,train\n".encode("utf-16"), "line 1 is not UTF-8"),
        ("x" * 200_000, "the header is broken"),
    ],
)
def test_tables_that_are_refused(table, text, message):
    assert message in error(table(text), split_column="split")


def test_splits_that_are_refused(table):
    source = Csv(path=table("image,label\na.png,cat\nb.png,dog\n"))
    with pytest.raises(UserError, match=r"needs dataset\.split_column"):
        source.split("column")
    with pytest.raises(UserError, match="2 classes cannot be divided"):
        source.split("random")
    known = "column, random, images, retrieval"
    with pytest.raises(UserError, match=rf"dataset\.split=folders is unknown here; choose one of: {known}"):
        source.split("folders")
    source = Csv(path=table("image,label,s\na.png,cat,train\nb.png,dog,test\n"), split_column="s")
    with pytest.raises(UserError, match="no images for val; add such rows"):
        source.split("column")


def test_arguments_that_are_refused(table, tmp_path):
    with pytest.raises(
        UserError, match=rf"dataset\.path={tmp_path}/no/t\.csv does not exist; {tmp_path} is the nearest"
    ):
        Csv(path=tmp_path / "no/t.csv")
    with pytest.raises(UserError, match="is a folder; give a CSV file"):
        Csv(path=tmp_path)
    path = table("image,label\na.png,cat\n")
    with pytest.raises(UserError, match=r"dataset\.images=.*does not exist"):
        Csv(path=path, images=tmp_path / "pictures")
    with pytest.raises(UserError, match=r"dataset\.images=.*is a file"):
        Csv(path=path, images=path)
    with pytest.raises(UserError, match=r"dataset\.test_fraction=2"):
        Csv(path=path, test_fraction=2)


# --- tables of parts, in a folder or an archive


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


# --- real photographs


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    archive = SHARED / "caltech101_ten_animals.zip"
    if not archive.is_file():
        pytest.skip(f"{archive} is absent; set FSL_DATA to the folder with the shared data")
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
