"""Folders that look like a run and are none: another program's, or damaged."""

import pytest
from PIL import Image


@pytest.fixture
def words(elsewhere):
    """The words of each command that reads a run."""
    for name in ("a", "b"):
        (elsewhere / "support" / name).mkdir(parents=True)
        Image.new("L", (20, 20), 255).save(elsewhere / "support" / name / "1.png")
    return lambda command, run: {
        "eval": [f"run={run}"], "predict": [run, elsewhere / "support" / "a", "--support", elsewhere / "support"],
    }.get(command, [run])  # fmt: skip


@pytest.mark.parametrize("command", ["resume", "export", "eval", "predict"])
@pytest.mark.parametrize("content", ["a: 1\n", "model: {name: x}\ndataset: mine\n", "hardware: null\n"])
def test_a_folder_of_another_program_is_refused_in_a_line(refused, elsewhere, words, command, content):
    foreign = elsewhere / "foreign"
    foreign.mkdir()
    (foreign / "config.yaml").write_text(content)
    (foreign / "status.json").write_text("{}")
    said = refused(command, *words(command, foreign), lines=1)
    assert str(foreign / "config.yaml") in said
    assert "no config of a run" in said


@pytest.mark.parametrize("command", ["resume", "export", "eval", "predict"])
def test_a_run_that_is_done_and_has_lost_its_config_is_refused_first(refused, copied, words, command):
    run = copied()
    (run / "config.yaml").write_text("")
    said = refused(command, *words(command, run), lines=1)
    assert str(run / "config.yaml") in said
    assert "damaged" in said


@pytest.mark.parametrize("command", ["resume", "export", "eval", "predict", "compare", "report", "tb"])
def test_a_path_that_cannot_be_looked_at_is_refused_in_a_line(refused, words, command):
    assert "File name too long" in refused(command, *words(command, "x" * 300), lines=1)


@pytest.mark.parametrize("inside", [[], ["config.yaml"], ["deeper/notes.txt"]])
def test_tensorboard_is_not_started_over_nothing(refused, elsewhere, monkeypatch, inside):
    tensorboard = pytest.importorskip("tensorboard.program")
    monkeypatch.setattr(tensorboard.TensorBoard, "launch", None)  # calling it would be a TypeError
    folder = elsewhere / "folder"
    for name in ("empty", *inside):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name != "empty":
            (folder / name).write_text("a: 1\n")
    said = refused("tb", folder, lines=1)
    assert f"{folder}: no runs below this folder" in said
