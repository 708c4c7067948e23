"""scripts/prepare_caltech256 on a small archive of the official layout."""

import hashlib
import importlib.util
import io
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import run_script

from fewshot_runner.data.sources.folder import Folder

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_caltech256"
# the names that the official archive gives the ten classes, in another order than the alphabet's
FOLDERS = (
    "250.zebra", "009.bear", "038.chimp", "084.giraffe", "090.gorilla", "134.llama-101", "151.ostrich",
    "164.porcupine", "186.skunk", "228.triceratops",
)  # fmt: skip
COUNT = {folder: 71 + position for position, folder in enumerate(FOLDERS)}


def photograph(folder: str, number: int) -> bytes:
    """A JPEG of one grey: its number in the class."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8), number).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def content() -> dict[str, bytes]:
    """Member name to content, the last photograph of a class first; and foreign members as the official one has."""
    files = {}
    for folder, count in COUNT.items():
        for number in range(count, 0, -1):
            files[f"256_ObjectCategories/{folder}/{folder[:3]}_{number:04d}.jpg"] = photograph(folder, number)
    files["256_ObjectCategories/198.spider/RENAME2"] = b"#!/bin/sh"
    files["256_ObjectCategories/257.clutter/257_0001.jpg"] = b"x"
    files["256_ObjectCategories/250.zebra/thumbs.db"] = b"x"
    files["256_ObjectCategories/300.polar-bear/300_0001.jpg"] = b"x"
    return files


def packed(path: Path, content: dict[str, bytes], *extra: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        for folder in ("256_ObjectCategories", "256_ObjectCategories/250.zebra"):
            member = tarfile.TarInfo(folder)
            member.type = tarfile.DIRTYPE
            tar.addfile(member)
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in extra:
            tar.addfile(member)
    return path


def refused(tmp_path: Path, archive: Path, message: str, *words: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    answer = run_script(SCRIPT.name, "--archive", archive, "--out", tmp_path / "out", *words)
    assert answer.returncode == 2
    assert re.search(message, answer.stderr), answer.stderr
    assert "Traceback" not in answer.stderr
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left behind"


def test_the_first_60_train_the_next_10_validate_and_the_rest_test(tmp_path, content):
    archive = packed(tmp_path / "small.tar", content)
    data = tmp_path / "data"
    answer = run_script(SCRIPT.name, "--archive", archive, "--unverified", FSL_DATA=str(data))
    assert answer.returncode == 0, answer.stderr
    tested = sum(COUNT.values()) - 700
    assert f"{data}/caltech256_animals: 600 to train, 100 to valid, {tested} to test" in answer.stdout
    assert [path.name for path in data.iterdir()] == ["caltech256_animals"]
    source = Folder(path=data / "caltech256_animals")
    split = source.split("folders")
    classes = ("bear", "chimp", "giraffe", "gorilla", "llama", "ostrich", "porcupine", "skunk", "triceratops", "zebra")
    assert split.classes == dict.fromkeys(("train", "val", "test"), classes)
    expected = set()
    for folder, count in COUNT.items():
        name = folder[4:].removesuffix("-101")
        for number in range(1, count + 1):
            part = "train" if number <= 60 else "valid" if number <= 70 else "test"
            expected.add(f"{part}/{name}/{folder[:3]}_{number:04d}.jpg")
    assert {item.name for item in source.items()} == expected
    for index in (0, 333, 699, len(expected) - 1):
        item = source.items()[index]
        number = int(Path(item.name).stem.rpartition("_")[2])
        assert abs(int(np.asarray(source.image(index))[0, 0]) - number) <= 1
    made = {str(path) for path in data.rglob("*")}
    answer = run_script(SCRIPT.name, "--archive", archive, "--unverified", FSL_DATA=str(data))
    assert answer.returncode == 2
    assert "exists already; remove it" in answer.stderr
    assert {str(path) for path in data.rglob("*")} == made


@pytest.mark.parametrize(
    ("name", "kind", "target", "message"),
    [
        ("../outside.jpg", tarfile.REGTYPE, "", r"\.\./outside\.jpg leads out"),
        ("/tmp/outside.jpg", tarfile.REGTYPE, "", "/tmp/outside.jpg leads out"),
        ("256_ObjectCategories/250.zebra/../../../x", tarfile.REGTYPE, "", "leads out"),
        ("256_ObjectCategories/250.zebra/250_0099.jpg", tarfile.SYMTYPE, "/etc/passwd", "neither a file nor a folder"),
        ("256_ObjectCategories/250.zebra/250_0099.jpg", tarfile.LNKTYPE, "../../x", "neither a file nor a folder"),
        ("256_ObjectCategories/250.zebra/250_0099.jpg", tarfile.FIFOTYPE, "", "neither a file nor a folder"),
    ],
)
def test_archives_that_could_do_harm_are_refused(tmp_path, content, name, kind, target, message):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    refused(tmp_path, packed(tmp_path / "bad.tar", content, member), message, "--unverified")


def damaged(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damaged(lambda whole: whole[: len(whole) // 2]), "damaged|71 photographs"),
        (damaged(lambda whole: whole[:700]), "damaged|not a readable tar|71 photographs"),
        (damaged(lambda whole: b"<html>" * 200), "not a readable tar file"),
        (Path.unlink, "No such file"),
    ],
    ids=["cut in half", "cut to a block", "a web page", "absent"],
)
def test_damaged_archives_are_named(tmp_path, content, damage, message):
    archive = packed(tmp_path / "bad.tar", content)
    damage(archive)
    refused(tmp_path, archive, message, "--unverified")
    refused(tmp_path, archive, f"{archive}")


def test_a_class_of_too_few_photographs_is_named(tmp_path, content):
    kept = {name: data for name, data in content.items() if not name.endswith(("186_0001.jpg", "186_0002.jpg"))}
    kept |= {f"256_ObjectCategories/186.skunk/{n}": b"x" for n in ("186_1.jpg", "skunk.jpg", "186_0003.jpg.part")}
    few = {name: data for name, data in kept.items() if "186_007" not in name}
    refused(tmp_path, packed(tmp_path / "few.tar", few), r"71 photographs of each .*; skunk has \d\d", "--unverified")


def test_another_archive_needs_a_word(tmp_path, content):
    archive = packed(tmp_path / "small.tar", content)
    digest = hashlib.md5(archive.read_bytes()).hexdigest()
    refused(tmp_path, archive, rf"not the official archive \(md5 {digest}, not 67b4f42c.*add --unverified")
    answer = run_script(SCRIPT.name, "--unverified", "--out", tmp_path / "out")
    assert answer.returncode == 2
    assert "--unverified is for --archive" in answer.stderr


def test_address_and_checksum_are_those_of_torchvision():
    torchvision = importlib.util.find_spec("torchvision")  # to import it would take seconds
    official = (Path(torchvision.origin).parent / "datasets" / "caltech.py").read_text()
    text = SCRIPT.read_text()
    for key in ("URL", "MD5"):
        (value,) = re.findall(rf'^{key} = "(.+)"$', text, re.M)
        assert f'"{value}"' in official
