"""Which pictures a folder holds: those that a data set of the same files holds."""

from pathlib import Path

import pytest
from PIL import Image

from fewshot_runner.data.sources.folder import Folder
from fewshot_runner.engine.predict import pictures_of
from fewshot_runner.errors import UserError


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
    assert pictures_of([folder]) == expected
    assert [folder / item.name for item in Folder(path=folder).items()] == expected


def test_pictures_and_folders_come_in_the_order_given(folder: Path) -> None:
    single = folder / "linked" / "f.png"
    assert pictures_of([single, folder / "cat"]) == [single, folder / "cat" / "A.PNG", folder / "cat" / "b.png"]


def test_a_folder_without_pictures_is_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="empty: there is no picture in this folder"):
        pictures_of([folder / "empty"])
