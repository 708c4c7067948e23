"""What the paths that users give lead to, and what is said where they lead nowhere."""

import zipfile
from pathlib import Path

import pytest

from fewshot_runner.data.place import locate, open_files
from fewshot_runner.errors import UserError

FILES = ("cat/A.PNG", "cat/b.png", "list.csv")


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in FILES:
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pictures" / name).write_text(name)
    return tmp_path / "pictures"


@pytest.fixture
def archive(tmp_path) -> Path:
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as file:
        for name in FILES:
            file.writestr(f"mine/{name}", name)
    return tmp_path / "packed.zip"


def test_where_a_path_leads(folder, archive, tmp_path, monkeypatch):
    assert locate(folder, key="k") == (folder, "")
    assert locate(archive, key="k") == (archive, "")
    assert locate(f"{archive}/mine/cat", key="k") == (archive, "mine/cat")
    assert locate(tmp_path / "packed", key="k") == (archive, ""), "the ending may be left out"
    assert locate("packed", key="k", root=tmp_path) == (archive, "")
    assert locate("pictures/cat", key="k", root=str(tmp_path)) == (folder / "cat", "")
    assert locate(archive, key="k", root="elsewhere") == (archive, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/packed", key="k") == (archive, "")
    assert locate("pictures", key="k", root="~") == (folder, "")
    monkeypatch.chdir(tmp_path)
    assert locate("packed.zip/mine", key="k") == (archive, "mine")
    (tmp_path / "pictures.zip").write_bytes(archive.read_bytes())
    assert locate(folder, key="k") == (folder, ""), "the folder goes first"
    place, inner = locate(f"{archive}/mine/cat", key="k")
    assert sorted(open_files(place, inner, key="k").listing().images) == ["A.PNG", "b.png"]
    assert sorted(open_files(folder, "cat", key="k").listing().images) == ["A.PNG", "b.png"]


def test_paths_that_lead_nowhere(folder, tmp_path):
    with pytest.raises(UserError, match=rf"^dataset\.x={tmp_path}/no/where does not exist; {tmp_path} is the nearest"):
        locate(tmp_path / "no/where", key="dataset.x")
    with pytest.raises(UserError, match=r"that does; buy it$"):
        locate(tmp_path / "no/where", key="dataset.x", remedy="buy it")
    with pytest.raises(UserError) as caught:
        locate("birds", key="dataset.path", root=tmp_path, remedy="buy it")
    assert str(caught.value) == (
        f"dataset.root={tmp_path}: neither {tmp_path}/birds nor birds.zip is there; buy it, or set dataset.root or "
        "FSL_DATA to the folder that holds it"
    )
    with pytest.raises(UserError, match=r"^dataset\.x=.*list\.csv is a file; give a folder or a zip archive"):
        open_files(folder / "list.csv", key="dataset.x")
