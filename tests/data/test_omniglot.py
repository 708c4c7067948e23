"""Omniglot: counts, protocols, damage, and what the tutorial's task follows.

Real zip files hold the whole set, for what is published of it: counts and lists. What is about folders or damage works
on four alphabets of drawings made here, which need no data.
"""

import io
import os
import re
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scribbles import SUBSET, characters_of, write_archives
from tampering import damage_member, rewrite

from fewshot_runner.data import download
from fewshot_runner.data.dataset import Dataset
from fewshot_runner.data.sources import omniglot
from fewshot_runner.data.sources.omniglot import Omniglot, TutorialRun
from fewshot_runner.data.store import open_store
from fewshot_runner.errors import UserError

ZIPS = ("images_background", "images_evaluation")


@pytest.fixture(scope="module")
def small_root(tmp_path_factory) -> Path:
    """A data folder with zip files of four alphabets; not to be changed."""
    root = tmp_path_factory.mktemp("small")
    write_archives(root / "omniglot-py")
    return root


@pytest.fixture
def small(small_root, tmp_path, monkeypatch) -> Path:
    """A copy of it that a test may damage, with the counts that belong to it."""
    monkeypatch.setattr(omniglot, "CHARACTERS", {part: sum(SUBSET[part].values()) for part in SUBSET})
    shutil.copytree(small_root, tmp_path / "data")
    return tmp_path / "data"


def unzip(root: Path, *, keep: bool = False) -> None:
    for part in ZIPS:
        archive = root / "omniglot-py" / f"{part}.zip"
        with zipfile.ZipFile(archive) as file:
            file.extractall(archive.parent)
        if not keep:
            archive.unlink()


# --- what is there


def test_the_whole_set_has_1623_characters_of_50_alphabets_by_20_drawers(real, omniglot_data):
    items = real.items()
    for part, characters, alphabets in (("images_background", 964, 30), ("images_evaluation", 659, 20)):
        of_part = [item for item in items if item.name.startswith(f"{part}/")]
        drawings = Counter(item.class_name for item in of_part)
        assert len(drawings) == characters
        assert set(drawings.values()) == {20}
        assert len({item.group for item in of_part}) == alphabets
        with zipfile.ZipFile(omniglot_data / "omniglot-py" / f"{part}.zip") as archive:
            assert {item.name for item in of_part} == {name for name in archive.namelist() if name.endswith(".png")}
    assert len({item.name for item in items}) == len(items) == 32_460
    for item in items[::997]:
        part, alphabet, character, drawing = item.name.split("/")
        assert (item.class_name, item.group, item.part) == (f"{alphabet}/{character}", alphabet, "")
        assert re.fullmatch(r"\d{4}_\d\d.png", drawing)


def check_drawing(source: Omniglot, root: Path, index: int) -> None:
    """It is that of its name in the zip file, dark ink on white paper."""
    name = source.items()[index].name
    with zipfile.ZipFile(root / "omniglot-py" / f"{name.partition('/')[0]}.zip") as archive:
        expected = np.asarray(Image.open(io.BytesIO(archive.read(name))))
    image = source.image(index)
    assert (image.mode, image.size) == ("L", (105, 105))
    assert np.array_equal(np.asarray(image), expected * np.uint8(255))
    assert 0.5 < (np.asarray(image) == 255).mean() < 1


def test_an_image_is_the_drawing_of_its_name(real, omniglot_data):
    for index in (0, 12_345, 19_279, 19_280, 32_459):
        check_drawing(real, omniglot_data, index)


@pytest.mark.parametrize("layout", ["zip", "folder"])
def test_every_drawing_is_listed_with_its_class_and_shown(small, layout):
    if layout == "folder":
        unzip(small, keep=True)
    source = Omniglot(root=str(small), download=False)
    drawings = Counter((item.class_name, item.group) for item in source.items())
    expected = [*characters_of("images_background"), *characters_of("images_evaluation")]
    assert drawings == {(character, character.split("/")[0]): 20 for character in expected}
    assert len({item.name for item in source.items()}) == 20 * 87
    for index in (0, 123, 819, 820, 1739):
        check_drawing(source, small, index)


def test_folders_and_zip_files_give_equal_stores(small, tmp_path):
    stores = []
    for _ in range(2):
        source = Omniglot(root=str(small), download=False)
        stores.append(open_store(source, image_size=20, channels=1, cache=tmp_path / "cache"))
        if len(stores) == 1:
            unzip(small)
    zipped, folders = stores
    assert zipped.path != folders.path
    assert len(zipped.labels) == 20 * (24 + 17 + 26 + 20)
    for name in ("pixels", "image_names", "labels", "class_names", "class_groups"):
        assert np.array_equal(getattr(zipped, name), getattr(folders, name))


def test_folders_are_preferred_to_zip_files_beside_them(small):
    unzip(small, keep=True)
    for archive in (small / "omniglot-py").glob("*.zip"):
        archive.write_bytes(b"no zip file")
    assert len(Omniglot(root=str(small), download=False).items()) == 20 * 87


def test_the_identity_changes_with_the_files(small, monkeypatch):
    def identity() -> dict:
        return Omniglot(root=str(small), download=False).identity()

    seen = [identity()]
    assert identity() == seen[0]
    with monkeypatch.context() as patch:
        patch.setattr(omniglot, "DECODER", "another")
        seen.append(identity())
    os.utime(small / "omniglot-py" / "images_background.zip", ns=(0, 0))
    seen.append(identity())
    unzip(small)
    seen.append(identity())
    drawing = next((small / "omniglot-py" / "images_evaluation" / "Keble" / "character01").iterdir())
    os.utime(drawing, ns=(1, 1))
    seen.append(identity())
    drawing.rename(drawing.parent.parent / "character02" / drawing.name)  # a rename changes neither size nor time
    seen.append(identity())
    assert all(seen.count(one) == 1 for one in seen)


def test_members_that_are_no_drawings_are_passed_over(small):
    archive = small / "omniglot-py" / "images_background.zip"
    rewrite(archive, add={
        "images_background/": b"",
        "images_background/Greek/.DS_Store": b"x",
        "images_background/readme.png": b"x",
        "__MACOSX/images_background/Greek/character01/._0394_01.png": b"x",
    })  # fmt: skip
    assert len(Omniglot(root=str(small), download=False).items()) == 20 * 87


# --- what is missing or damaged


@pytest.mark.parametrize("layout", ["zip", "folder"])
@pytest.mark.parametrize(
    ("without", "message"),
    [
        (r"Greek/character07/\d+_12", "Greek/character07 has 19"),
        ("Greek/character07", "40 characters where 41 belong, 20 drawings each .whole characters are missing"),
        ("Greek", "17 characters where 41 belong"),
        ("images_background", "0 characters where 41 belong"),
    ],
    ids=["a drawing", "a character", "an alphabet", "all"],
)
def test_what_is_missing_is_named_with_its_place_and_the_remedy(small, layout, without, message):
    place = small / "omniglot-py" / "images_background.zip"
    if layout == "folder":
        unzip(small)
        place = place.with_suffix("")
        for file in place.glob("*/*/*.png"):
            if re.search(without, str(file.relative_to(place.parent))):
                file.unlink()
    else:
        rewrite(place, without=without)
    with pytest.raises(UserError, match=f"{place}: Omniglot is incomplete: .*{message}.*; delete it and let fsl"):
        Omniglot(root=str(small), download=False).split("lake")


def test_a_second_drawing_too_many_is_named(small):
    archive = small / "omniglot-py" / "images_evaluation.zip"
    rewrite(archive, add={"images_evaluation/Keble/character01/9999_21.png": b"x"})
    with pytest.raises(UserError, match=f"{archive}: .*Keble/character01 has 21"):
        Omniglot(root=str(small), download=False).items()


def test_a_zip_file_packed_from_another_folder_is_refused(small):
    archive = small / "omniglot-py" / "images_evaluation.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("Keble/character01/1247_01.png", b"x")
    with pytest.raises(UserError, match=f"{archive}: Omniglot is incomplete: 0 characters where 46 belong"):
        Omniglot(root=str(small), download=False).items()


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_a_file_that_is_no_zip_is_named(small, damage):
    archive = small / "omniglot-py" / "images_evaluation.zip"
    content = archive.read_bytes()
    archive.write_bytes({"truncated": content[: len(content) // 2], "garbage": b"<html>", "empty": b""}[damage])
    with pytest.raises(UserError, match=f"{archive}: not a readable zip file .*; delete it and let fsl download"):
        Omniglot(root=str(small), download=False).items()


@pytest.mark.parametrize("layout", ["zip", "folder"])
def test_a_damaged_drawing_is_named(small, layout, tmp_path):
    place = small / "omniglot-py" / "images_evaluation.zip"
    if layout == "folder":
        unzip(small)
        place = place.with_suffix("")
        drawing = sorted(place.glob("Keble/character05/*.png"))[3]
        drawing.write_bytes(drawing.read_bytes()[:60])
    else:
        name = "images_evaluation/Keble/character05"
        with zipfile.ZipFile(place) as file:
            damage_member(place, sorted(member for member in file.namelist() if name in member)[3])
    source = Omniglot(root=str(small), download=False)
    index = [item.class_name for item in source.items()].index("Keble/character05") + 3
    with pytest.raises(UserError, match=f"{place}.*{Path(source.items()[index].name).name}"):
        source.image(index)
    with pytest.raises(UserError, match=f"{place}.*{Path(source.items()[index].name).name}"):
        open_store(source, image_size=8, channels=1, cache=tmp_path / "cache")


def test_absent_data_names_both_places_and_the_remedy(tmp_path):
    with pytest.raises(UserError) as caught:
        Omniglot(root=str(tmp_path), download=False)
    for words in (
        "download=false: ",
        f"{tmp_path}/omniglot-py/images_background ",
        f"{tmp_path}/omniglot-py/images_background.zip",
        "set it to true, or dataset.root or FSL_DATA to the folder",
    ):
        assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_absent_data_is_fetched_with_its_checksum(small, tmp_path, monkeypatch):
    asked = []

    def fetch(url: str, path: Path, *, md5: str) -> None:
        asked.append((url.rpartition("/")[2], md5))
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(small / "omniglot-py" / path.name, path)

    monkeypatch.setattr(download, "fetch", fetch)
    source = Omniglot(root=str(tmp_path / "new"))
    assert len(source.items()) == 20 * 87
    assert asked == [  # as torchvision.datasets.Omniglot.zips_md5 has them
        ("images_background.zip", "68d2efa1b9178cc56df9314c21c6e718"),
        ("images_evaluation.zip", "6b91aef0f799c5bb55b94e3f2daec811"),
    ]


# --- protocols


def test_lake_trains_on_background_alphabets_and_tests_on_evaluation_alphabets(real):
    split = real.split("lake")
    alphabets = {part: {name.split("/")[0] for name in names} for part, names in split.classes.items()}
    assert {part: len(found) for part, found in alphabets.items()} == {"train": 25, "val": 5, "test": 20}
    of_set = {part: {item.class_name for item in real.items() if item.name.startswith(f"{part}/")} for part in ZIPS}
    assert set(split.classes["test"]) == of_set["images_evaluation"]
    assert set(split.classes["train"]) | set(split.classes["val"]) == of_set["images_background"]
    assert not alphabets["train"] & alphabets["val"], "validation takes whole alphabets"
    assert not (alphabets["train"] | alphabets["val"]) & alphabets["test"]
    assert sum(map(len, split.classes.values())) == 1623
    assert not split.rotations
    assert split.images is None


def test_lake_divides_whole_alphabets(small):
    classes = Omniglot(root=str(small), download=False).split("lake").classes
    numbers = {part: Counter(name.split("/")[0] for name in names) for part, names in classes.items()}
    assert numbers == {"train": {"Greek": 24}, "val": {"Tagalog": 17}, "test": {"Keble": 26, "Angelic": 20}}


def test_trap_10_vinyals_divides_base_characters_and_then_turns_them(real, vinyals_lists):
    split = real.split("vinyals")
    parts = {part: set(names) for part, names in split.classes.items()}
    assert {part: len(names) for part, names in parts.items()} == {"train": 1028, "val": 172, "test": 423}
    assert len(set.union(*parts.values())) == 1623, "no base character stands in two parts"
    assert split.rotations
    for part, lines in vinyals_lists.items():
        turned = {f"{name}/rot{angle:03d}" for name in parts[part] for angle in (0, 90, 180, 270)}
        assert turned == set(lines)


def test_trap_10_a_table_of_vinyals_holds_four_classes_a_character(small, tmp_path, monkeypatch):
    characters = {"train": ["Greek/character01", "Angelic/character02"], "val": ["Keble/character03"]}
    characters["test"] = ["Greek/character02", "Tagalog/character01"]
    monkeypatch.setattr(omniglot, "VINYALS_CHARACTERS", {part: len(names) for part, names in characters.items()})
    folder = small / "splits" / "omniglot" / "vinyals"
    folder.mkdir(parents=True)
    for part, names in characters.items():
        (folder / f"{part}.txt").write_text(
            "".join(f"{n}/rot{a}\n" for n in names for a in ("000", "090", "180", "270"))
        )
    source = Omniglot(root=str(small), download=False)
    dataset = Dataset(source, split="vinyals", cache=str(tmp_path / "cache"), image_size=8)
    names = [item.class_name for item in source.items()]
    seen: set[int] = set()
    for part, base in characters.items():
        table = dataset.table(part)
        assert set(table.names) == {n + a for n in base for a in ("", "/rot090", "/rot180", "/rot270")}
        images = set((table.members % len(names)).tolist())
        assert images == {index for index, name in enumerate(names) if name in base}
        assert not images & seen
        seen |= images


def test_trap_09_protocols_have_names_and_hashes_of_their_own(real, vinyals_lists):
    lake, vinyals = real.split("lake"), real.split("vinyals")
    assert (lake.name, vinyals.name) == ("lake", "vinyals")
    assert lake.hash != vinyals.hash
    assert set(vinyals.classes["train"]) & set(lake.classes["test"]), "each trains on what the other tests"
    with pytest.raises(UserError, match=r"dataset.split=ravi: Omniglot has the splits lake, koch and vinyals"):
        real.split("ravi")


def test_trap_11_a_hash_stays_with_the_lists_and_moves_with_a_class(real, omniglot_data):
    split = real.split("lake")
    assert Omniglot(root=str(omniglot_data), download=False).split("lake").hash == split.hash
    train, *rest = sorted(split.classes["train"])
    moved = {"train": rest, "val": [*split.classes["val"], train], "test": split.classes["test"]}
    assert type(split)("lake", moved).hash != split.hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-4], r"not the published list of \d+ characters .*under \d+ rotations"),
        (lambda lines: lines[:-1], r"not the published list of \d+ characters"),
        (lambda lines: [*lines[:-1], lines[0]], "not the published list"),
        (
            lambda lines: [*lines[:-4], *(f"Klingon/character01/{n}" for n in range(4))],
            ".*unknown: Klingon/character01",
        ),
        (lambda lines: ["<html>", "404"], "not the published list"),
    ],
    ids=["a character less", "a rotation less", "a line twice", "another alphabet", "another file"],
)
def test_a_list_that_is_not_the_published_one_is_refused(tmp_path, omniglot_data, vinyals_lists, change, message):
    (tmp_path / "omniglot-py").symlink_to(omniglot_data / "omniglot-py")
    folder = tmp_path / "splits" / "omniglot" / "vinyals"
    folder.mkdir(parents=True)
    for part, lines in vinyals_lists.items():
        (folder / f"{part}.txt").write_text("\n".join(change(lines) if part == "val" else lines) + "\n")
    with pytest.raises(UserError, match=f"{folder}/val.txt: {message}.*; delete it and let fsl download it again"):
        Omniglot(root=str(tmp_path), download=False).split("vinyals")


def test_lists_that_are_absent_are_named_or_fetched(tmp_path, omniglot_data, vinyals_lists, monkeypatch):
    (tmp_path / "omniglot-py").symlink_to(omniglot_data / "omniglot-py")
    with pytest.raises(UserError, match=r"^dataset.source.download=false: .*vinyals/train.txt is missing; set it"):
        Omniglot(root=str(tmp_path), download=False).split("vinyals")

    def fetch(url: str, path: Path, *, md5: str) -> None:
        content = ("\n".join(vinyals_lists[path.stem]) + "\n").encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    monkeypatch.setattr(download, "fetch", fetch)
    fetched = Omniglot(root=str(tmp_path)).split("vinyals")
    assert fetched.hash == Omniglot(root=str(omniglot_data), download=False).split("vinyals").hash


# --- the tutorial's task


def test_the_tutorials_task_follows_its_files(small):
    def identity() -> dict:
        return TutorialRun(root=str(small), download=False).identity()

    seen = [identity(), Omniglot(root=str(small), download=False).identity()]
    assert identity() == seen[0]
    os.utime(small / "omniglot-py" / "images_evaluation.zip", ns=(0, 0))
    assert identity() not in seen
