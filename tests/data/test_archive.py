"""Archives beside folders of the same files: listings, stamps, identity, and damage that is named."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot_runner.data.archive import Archive
from fewshot_runner.data.files import Directory, Files
from fewshot_runner.errors import UserError

PICTURES = ("cat/b.png", "cat/A.PNG", "dog/deep/c.jpeg")
OTHERS = ("list.csv", "dog/note.txt", "cat/.hidden.png", "__MACOSX/cat/x.png", ".git/y.png")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Pictures whose grey value is their place in the list, and files of other kinds that hold their name."""
    root = tmp_path / "pictures"
    for value, name in enumerate(PICTURES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), value).save(root / name, "PNG")
    for name in OTHERS:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "empty").mkdir()
    return root


def pack(folder: Path, archive: Path, below: str = "", **options: int) -> Path:
    """By the standard library: `folder` with its empty folders, below the folder `below` of the archive."""
    with zipfile.ZipFile(archive, "w", **options) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, below + path.relative_to(folder).as_posix())
    return archive


def both(folder: Path, archive: Path) -> list[Files]:
    return [Directory(folder), Archive(pack(folder, archive))]


def test_an_archive_lists_and_reads_what_the_folder_does(folder, tmp_path):
    for files in both(folder, tmp_path / "p.zip"):
        found = files.listing()
        assert sorted(found.images) == sorted(PICTURES)
        assert {name: sorted(other) for name, other in found.folders.items()} == {
            "": ["list.csv"], "cat": [], "dog": ["note.txt"], "dog/deep": [], "empty": []
        }  # fmt: skip
        assert sorted(files.listing("cat").images) == ["cat/A.PNG", "cat/b.png"]
        assert sorted(files.listing("dog").images) == ["dog/deep/c.jpeg"]
        assert not files.listing("do").images
        assert not files.listing("nowhere").images
        assert files.read("list.csv") == b"list.csv"
        assert [np.asarray(files.image(name))[0, 0] for name in PICTURES] == [0, 1, 2]
        assert files.stamp("cat/none.png") is None
        assert files.stamp("cat") is None, "a folder is no file"
        for name, stamp in found.images.items():
            assert stamp == files.stamp(name)
            assert stamp[0] == (folder / name).stat().st_size
        assert files.where("cat/b.png") == f"{files.place}/cat/b.png"


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_compression_is_read_and_its_damage_named(folder, tmp_path, compression):
    archive = pack(folder, tmp_path / "p.zip", compression=compression)
    files = Archive(archive)
    assert files.read("dog/note.txt") == b"dog/note.txt"
    damage(archive, "dog/note.txt")
    with pytest.raises(UserError, match=f"^{archive}: dog/note.txt is damaged .*; fetch or pack the archive again"):
        Archive(archive).read("dog/note.txt")
    assert Archive(archive).read("list.csv") == b"list.csv"


def damage(archive: Path, name: str) -> None:
    """Turns over the bits of a member's last bytes."""
    with zipfile.ZipFile(archive) as file:
        member = file.getinfo(name)
        start = member.header_offset + 30 + len(name) + member.compress_size - 3
    content = bytearray(archive.read_bytes())
    content[start : start + 3] = bytes(255 - value for value in content[start : start + 3])
    archive.write_bytes(content)


def test_a_folder_of_an_archive(folder, tmp_path):
    archive = pack(folder, tmp_path / "p.zip", below="mine/")
    for inner in ("mine", "mine/", "/mine"):
        files = Archive(archive, inner)
        assert sorted(files.listing().images) == sorted(PICTURES)
        assert files.read("list.csv") == b"list.csv"
        assert files.place == f"{archive}/mine"
    assert sorted(Archive(archive).listing("mine/dog").images) == ["mine/dog/deep/c.jpeg"]
    with pytest.raises(UserError, match=r"p\.zip/min: p\.zip has no such folder; its entries begin with mine"):
        Archive(archive, "min")


def test_members_that_would_escape_are_bytes_like_others(tmp_path):
    archive = tmp_path / "p.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("../up.png", "/etc/x.png", "a/../../up.png", "win\\dows\\x.png", "a/1.png"):
            file.writestr(name, name)
    files = Archive(archive)
    assert {"a/1.png", "etc/x.png", "win/dows/x.png"} == set(files.listing().images)
    assert files.read("../up.png") == b"../up.png"
    assert files.read("win/dows/x.png") == b"win\\dows\\x.png"
    assert [path.name for path in tmp_path.iterdir()] == ["p.zip"]


def test_names_that_begin_with_a_dot_or_double_a_slash_are_those_that_unpacking_makes(tmp_path):
    archive = tmp_path / "p.zip"
    names = ("./", "./cat/", "./cat/1.png", "cat//2.png", "./dog/./3.png", "./empty//")
    with zipfile.ZipFile(archive, "w") as file:
        for name in names:
            file.writestr(name, "" if name.endswith("/") else name)
        file.extractall(tmp_path / "unpacked")
    packed, unpacked = Archive(archive), Directory(tmp_path / "unpacked")
    assert sorted(packed.listing().images) == sorted(unpacked.listing().images) == [
        "cat/1.png", "cat/2.png", "dog/3.png"
    ]  # fmt: skip
    assert packed.listing().folders == unpacked.listing().folders
    for name in packed.listing().images:
        assert packed.read(name) == unpacked.read(name)


def test_of_equal_names_the_last_counts(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as file:
        file.writestr("a", "first")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a", "second, and longer")
    files = Archive(tmp_path / "p.zip")
    assert files.read("a") == b"second, and longer"
    assert files.stamp("a")[0] == 18


def test_stamps_and_identity_tell_changes(folder, tmp_path):
    archive = pack(folder, tmp_path / "p.zip")
    first = Archive(archive)
    assert first.identity() == Archive(archive).identity()
    assert Directory(folder).identity() == {}
    stamp = first.stamp("list.csv")
    (folder / "list.csv").write_text("LIST.csv")  # as long
    status = archive.stat()
    pack(folder, archive)
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = Archive(archive)
    assert second.identity() == first.identity(), "as if nothing had happened"
    assert second.stamp("list.csv") != stamp
    assert second.stamp("dog/note.txt") == first.stamp("dog/note.txt")
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert Archive(archive).identity() != first.identity()
    with open(archive, "ab") as file:
        file.write(b"\0")  # what follows the directory of members is passed over
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert Archive(archive).identity() != first.identity()


@pytest.mark.parametrize("change", [lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda whole: b"<html>"])
def test_files_that_are_no_archives_are_named(folder, tmp_path, change):
    archive = pack(folder, tmp_path / "p.zip")
    archive.write_bytes(change(archive.read_bytes()))
    with pytest.raises(UserError, match=f"^{archive}: not a readable zip file .*; fetch or pack the archive again"):
        Archive(archive)


def test_members_that_cannot_be_read_are_named(folder, tmp_path):
    archive = pack(folder, tmp_path / "p.zip")
    with pytest.raises(UserError, match=r"p\.zip/cat/none\.png: p\.zip has no such file"):
        Archive(archive).read("cat/none.png")
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        start = file.getinfo("list.csv").header_offset
    directory = content.rindex(b"PK\x01\x02", 0, content.rindex(b"list.csv"))
    content[start + 6] |= 1  # the flag of encryption, in the member's header and in the directory
    content[directory + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"list\.csv cannot be read .*password.*; pack the archive again"):
        Archive(archive).read("list.csv")
    (folder / "cat/b.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=rf"^{folder}/cat/b\.png: this is no image"):
        Directory(folder).image("cat/b.png")
    with pytest.raises(UserError, match=rf"^{folder}/cat/none\.png: the file cannot be read \(No such file"):
        Directory(folder).read("cat/none.png")
