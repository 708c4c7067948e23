"""CSV files: delimiters, columns, splits, and errors that name the line."""

import os
import unicodedata

import numpy as np
import pytest
from csv_errors import error
from PIL import Image

from fewshot_runner.data.source import Item
from fewshot_runner.data.sources.csv import Csv
from fewshot_runner.errors import UserError


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


@pytest.mark.parametrize("header", ["image|label", "image:label|split", "image label", "image"])
def test_a_header_that_is_not_divided_is_told_by_which_signs_it_would_be(table, header):
    message = error(table(f"{header}\na.png\n"))
    assert f"the header is one column, {header!r}; separate columns by commas, semicolons or tabs" in message
    assert "nearest" not in message


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


def test_names_from_windows_and_from_a_mac_find_their_files(table, tmp_path):
    apart, together = (unicodedata.normalize(form, "Löwe") for form in ("NFD", "NFC"))
    for name in (apart, "ibis"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "1.png")
    path = table(f"image,label\n{together}/1.png,{apart}\nibis\\1.png,ibis\n")
    assert Csv(path=path).items() == (Item(f"{apart}/1.png", together), Item("ibis/1.png", "ibis"))


def test_a_label_that_is_called_as_another_with_its_group_is_refused(table):
    text = "image,label,g\na.png,b/c,a\nb.png,c,a/b\nc.png,c,b\nd.png,b/c,a\n"
    message = error(table(text), group_column="g")
    assert "1 rows give a class another group: 'a/b/c' is of 'a' and of 'a/b' (line 3). Remedy: rename" in message


def test_splits_that_are_refused(table):
    source = Csv(path=table("image,label\na.png,cat\nb.png,dog\n"))
    with pytest.raises(UserError, match=r"needs dataset\.split_column"):
        source.split("column")
    with pytest.raises(UserError, match="2 classes cannot be divided"):
        source.split("random")
    known = "column, random, images, retrieval, test"
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
