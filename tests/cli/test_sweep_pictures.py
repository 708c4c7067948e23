"""Sweeps on a user's own pictures, which may be mended between two of them."""

import json
from pathlib import Path

import pytest
from PIL import Image
from sweeps import runs_below


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Six pictures of each of eight classes."""
    folder = tmp_path / "pictures"
    for number in range(48):
        place = folder / f"class{number % 8}/{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), 5 * number).save(place)
    return folder


@pytest.fixture
def command(pictures, tmp_path) -> list[str]:
    """A sweep of nothing yet: it ends with the seeds."""
    return [
        "train", "-m", "dataset=folder", f"dataset.path={pictures}", "dataset.image_size=16", "method=pixels",
        "hardware=cpu", "episode.n_way=2", "episode.n_query=2", "trainer.val_episodes=2", "eval.episodes=4",
        "method.sampler.n_way=2", "trainer.max_steps=0", f"output_dir={tmp_path / 'runs'}",
    ]  # fmt: skip


def mend(pictures: Path) -> None:
    Image.new("L", (16, 16), 255).save(pictures / "class0/0.png")


def test_what_is_done_on_other_pictures_is_not_done(fsl, pictures, command, tmp_path, started):
    """Pictures of a run that is done and that lie no longer there count as they were."""
    command.append("seed=0,1")
    assert fsl(*command).code == 0
    assert "done already" in fsl(*command).err
    assert started == [("start", 0), ("start", 1)]
    mend(pictures)
    answer = fsl(*command)
    assert answer.code == 0, answer.err
    assert "done already" not in answer.err
    assert started == [("start", 0), ("start", 1)] * 2
    assert fsl(*command).err.count("done already") == 2
    pictures.rename(tmp_path / "elsewhere")
    assert fsl(*command).err.count("done already") == 2


@pytest.mark.parametrize("state", ["stopped", "pruned"])
def test_a_job_whose_run_was_left_before_its_pictures_were_mended_begins_anew(
    fsl, pictures, command, tmp_path, started, state
):
    command.append("seed=0")
    assert fsl(*command).code == 0
    [run] = runs_below(tmp_path / "runs")
    run.write_status(state, step=0, seconds=1.0)
    mend(pictures)
    for done in ("] done  ", "] done already"):
        answer = fsl(*command)
        assert answer.code == 0, answer.err
        assert done in answer.err
    assert started == [("start", 0), ("start", 0)]
    assert run.read_status()["state"] == state


def test_a_run_of_an_earlier_version_tells_its_pictures_by_its_checkpoint(fsl, pictures, command, tmp_path, started):
    command.append("seed=0")
    assert fsl(*command).code == 0
    [run] = runs_below(tmp_path / "runs")
    environment = json.loads(run.environment.read_text())
    del environment["data"]
    run.environment.write_text(json.dumps(environment))
    run.summary.write_text(json.dumps({"results": []}))
    run.write_status("stopped", step=0, seconds=1.0)
    mend(pictures)
    assert fsl(*command).code == 0
    assert started == [("start", 0), ("resume", 0), ("start", 0)]


def test_other_labels_of_the_same_pictures_are_other_data(fsl, pictures, command, tmp_path, started):
    files = sorted(pictures.rglob("*.png"))
    rows = [f"{path.relative_to(pictures)},{path.parent.name}\n" for path in files]
    table = tmp_path / "labels.csv"
    table.write_text("image,label\n" + "".join(rows))
    of_table = ["dataset=csv", f"dataset.path={table}", f"dataset.images={pictures}"]
    command[2:4] = of_table
    command.append("seed=0")
    answer = fsl(*command)
    assert answer.code == 0, answer.err
    assert "done already" in fsl(*command).err
    rows[0], rows[6] = (f"{rows[a].split(',')[0]},{rows[b].split(',')[1]}" for a, b in ((0, 6), (6, 0)))
    table.write_text("image,label\n" + "".join(rows))
    assert "done already" not in fsl(*command).err
    assert started == [("start", 0)] * 2


def test_pictures_of_a_data_set_that_has_its_place_from_its_source_may_be_mended_too(
    fsl, pictures, command, tmp_path, started
):
    parts = {"train": range(4), "val": range(4, 6), "test": range(6, 8)}
    for part, classes in parts.items():
        rows = [f"{file.name},class{n}\n" for n in classes for file in (pictures / f"class{n}").iterdir()]
        (pictures / f"{part}.csv").write_text("filename,label\n" + "".join(rows))
    place = pictures.rename(tmp_path / "mini_imagenet_84")
    command[2:4] = ["dataset=mini_imagenet", f"dataset.root={tmp_path}"]
    command.append("seed=0")
    answer = fsl(*command)
    assert answer.code == 0, answer.err
    assert "done already" in fsl(*command).err
    mend(place)
    assert "done already" not in fsl(*command).err
    assert started == [("start", 0)] * 2


def test_mended_pictures_are_noticed_before_jobs_are_sent_away(fsl, pictures, command):
    pytest.importorskip("submitit")
    command += ["seed=0", "launcher=slurm", "launcher.cluster=local", "launcher.poll_seconds=0.1"]
    for _ in range(2):
        answer = fsl(*command)
        assert answer.code == 0, answer.err
        assert "done already" not in answer.err
        mend(pictures)
