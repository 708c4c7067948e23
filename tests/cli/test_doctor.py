"""fsl doctor: what it finds well, and what it says where something is amiss."""

import pytest

from fewshot_runner.cli import doctor
from fewshot_runner.engine import environment
from fewshot_runner.errors import UserError


def test_doctor_finds_everything_well(fsl, elsewhere, monkeypatch):
    monkeypatch.setenv("FSL_DATA", str(elsewhere))  # and not what the user has there
    answer = fsl("doctor")
    assert answer.code == 0, answer.out
    lines = [line.split() for line in answer.out.splitlines() if line.split()[:1] in (["ok"], ["no"])]
    assert [line[:2] for line in lines] == [
        ["ok", name] for name in ("packages", "hardware", "configs", "data", "cache")
    ]
    assert list(elsewhere.iterdir()) == []


def test_doctor_asks_for_no_package_that_only_some_runs_need(monkeypatch):
    version = environment._version
    monkeypatch.setattr(environment, "_version", lambda name: None if name == "timm" else version(name))
    assert "timm" not in doctor._packages()
    monkeypatch.setattr(environment, "_version", lambda name: None if name == "numpy" else version(name))
    with pytest.raises(UserError, match=r"^not installed: numpy; run pip install fewshot-runner$"):
        doctor._packages()


def test_doctor_says_what_is_amiss(fsl, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FSL_CACHE", str(tmp_path / "file"))
    answer = fsl("doctor")
    assert answer.code == 2
    assert len([line for line in answer.out.splitlines() if line.split()[:2] == ["no", "cache"]]) == 1
    assert "FSL_CACHE" in answer.out
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("name", ["[old]", "[/x]", "[red]x"])
def test_doctor_names_folders_in_brackets(fsl, tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file[old]").write_text("")
    monkeypatch.setenv("FSL_DATA", str(tmp_path / name))
    monkeypatch.setenv("FSL_CACHE", str(tmp_path / "file[old]"))
    said = "".join(fsl("doctor").out.split())  # a long path is broken
    assert f"{tmp_path}/{name}:" in said
    assert f"{tmp_path}/file[old]:" in said


def test_doctor_tells_data_that_are_damaged_from_those_that_are_absent(fsl, tmp_path, monkeypatch):
    monkeypatch.setenv("FSL_DATA", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "500")

    def said() -> tuple[int, str]:
        answer = fsl("doctor")
        [line] = [line for line in answer.out.splitlines() if line.split()[1:2] == ["data"]]
        return answer.code, " ".join(line.split())

    code, line = said()
    assert (code, line[:7]) == (0, "ok data")
    assert "glyphs (" in line
    assert "dataset=omniglot downloads" in line
    (tmp_path / "omniglot-py").mkdir()
    for part in ("images_background", "images_evaluation"):
        (tmp_path / "omniglot-py" / f"{part}.zip").write_bytes(b"no archive")
    code, line = said()
    assert (code, line[:7]) == (2, "no data")
    assert line.count("images_background.zip: not a readable zip file") == 1
    for part in ("images_background", "images_evaluation"):
        (tmp_path / "omniglot-py" / f"{part}.zip").unlink()
        (tmp_path / "omniglot-py" / part).mkdir()
    code, line = said()
    assert (code, line[:7]) == (2, "no data")
    assert "incomplete: 0 characters" in line
    for part in ("images_background", "images_evaluation"):
        (tmp_path / "omniglot-py" / part).rmdir()
    (tmp_path / "cub_retrieval.zip").write_bytes(b"no archive")
    code, line = said()
    assert (code, line[:7]) == (2, "no data")
    assert "cub_retrieval.zip" in line
