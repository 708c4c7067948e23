"""fsl report: a page from run folders, and analyses where they are asked for."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml


def test_a_report_without_analyses_says_what_is_missing(fsl, copied, tmp_path):
    run = copied()
    answer = fsl("report", run, "-o", tmp_path / "page.html", "--title", "A <title>", "--no-analyse")
    assert answer.code == 0, answer.err
    where, missing = answer.out.splitlines()
    assert where == f"report: {tmp_path / 'page.html'}"
    assert missing.startswith(f"not analysed: {run.parent.name}/{run.name}; without --no-analyse ")
    page = (tmp_path / "page.html").read_text()
    assert "<h1>A &lt;title&gt;</h1>" in page
    assert "have not been analysed" in page
    assert not (run / "analysis").exists()


def test_analyses_are_made_once_and_kept(fsl, copied, tmp_path):
    run = copied()
    first = fsl("report", run, "-o", tmp_path / "page.html")
    assert first.code == 0, first.err
    assert f"analyse 1/1: {run}" in first.err
    content = json.loads((run / "analysis" / "analysis.json").read_text())
    summary = json.loads((run / "summary.json").read_text())["results"][0]
    assert content["step"] == summary["step"]
    assert content["episodes"] == summary["episodes"] == 50
    tasks = np.load(run / summary["tasks"])
    hardest = [each["accuracy"] for each in content["hardest"]]
    np.testing.assert_allclose(hardest, np.sort(tasks)[: len(hardest)], atol=1e-6)
    assert {each.name for each in (run / "analysis").glob("episode-*.png")}
    page = (tmp_path / "page.html").read_text()
    assert "Hardest episodes" in page
    assert "Ways and shots" in page
    assert "data:image/png;base64," in page
    again = fsl("report", run, "-o", tmp_path / "page.html")
    assert "analyse 1/1" not in again.err
    assert len(again.out.splitlines()) == 1


def test_what_cannot_be_analysed_is_said_and_the_page_is_made(fsl, copied, tmp_path):
    run = copied()
    for checkpoint in (run / "checkpoints").iterdir():
        checkpoint.unlink()
    answer = fsl("report", run, "-o", tmp_path / "page.html")
    assert answer.code == 0
    assert f"not analysed: {run}" in answer.err
    assert "Traceback" not in answer.err
    assert (tmp_path / "page.html").is_file()


def test_a_run_in_a_folder_that_cannot_be_written_to_does_not_end_the_report(fsl, copied, tmp_path, monkeypatch):
    from fewshot_runner.cli import analysis

    def refuses(run):
        raise OSError(30, "Read-only file system", str(run.lock))

    monkeypatch.setattr(analysis, "analyse_run", refuses)
    answer = fsl("report", copied(), "-o", tmp_path / "page.html")
    assert answer.code == 0
    assert "Read-only file system" in answer.err
    assert (tmp_path / "page.html").is_file()


def test_data_that_have_changed_are_not_analysed_and_say_how_they_would_be(fsl, pictures, tmp_path):
    """Further pictures divide the classes otherwise, so that what is hardest may be what was trained on."""
    run = fsl("train", *pictures(range(6)), f"output_dir={tmp_path}/outputs").run
    pictures(range(6, 9))
    answer = fsl("report", run, "-o", tmp_path / "page.html")
    assert answer.code == 0, answer.err
    [said] = [line for line in answer.err.splitlines() if line.startswith(f"not analysed: {run}: ")]
    assert "images_hash" in said
    assert said.endswith("put the former data back")
    assert not (run / "analysis").exists()
    assert "Hardest episodes" not in (tmp_path / "page.html").read_text()
    for number in range(6, 9):
        for picture in (tmp_path / "pictures").glob(f"*/{number}.png"):
            picture.unlink()
    answer = fsl("report", run, "-o", tmp_path / "page.html")
    assert "not analysed" not in answer.err
    assert "Hardest episodes" in (tmp_path / "page.html").read_text()


def test_data_that_were_moved_are_analysed(fsl, pictures, tmp_path):
    run = fsl("train", *pictures(range(6)), f"output_dir={tmp_path}/outputs").run
    (tmp_path / "pictures").rename(tmp_path / "moved")
    (tmp_path / "pictures").symlink_to(tmp_path / "moved")
    answer = fsl("report", run, "-o", tmp_path / "page.html")
    assert "not analysed" not in answer.err
    assert (run / "analysis" / "analysis.json").is_file()


def test_a_run_of_a_gpu_is_analysed_where_there_is_none(fsl, copied, tmp_path):
    run = copied()
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["hardware"]["device"] = "cuda"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    answer = fsl("report", run, "-o", tmp_path / "page.html")
    assert "not analysed" not in answer.err
    assert (run / "analysis" / "analysis.json").is_file()


def test_wrong_places_are_refused(refused, copied, tmp_path):
    run = copied()
    assert "--output" in refused("report", run, "-o", tmp_path / "nowhere" / "page.html")
    assert "--output" in refused("report", run, "-o", tmp_path)
    assert "no such folder" in refused("report", tmp_path / "nowhere", "-o", tmp_path / "page.html")
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path}/empty: no runs" in refused("report", tmp_path / "empty", "-o", tmp_path / "page.html")
    assert "--where seed=7" in refused("report", run, "--where", "seed=7", "-o", tmp_path / "page.html")


@pytest.mark.usefixtures("any_bytes_are_names")
def test_a_page_of_a_folder_whose_name_is_no_text_is_written(fsl, copied, tmp_path):
    run = copied()
    run.rename(run.with_name(os.fsdecode(b"caf\xe9")))
    answer = fsl("report", tmp_path / "outputs", "-o", tmp_path / os.fsdecode(b"page-\xe9.html"), "--no-analyse")
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[0].encode() == f"report: {tmp_path}/page-\\udce9.html".encode()
    assert r"caf\udce9" in (tmp_path / os.fsdecode(b"page-\xe9.html")).read_text()


def test_a_place_that_cannot_be_looked_at_is_refused(refused, copied, tmp_path):
    run = copied()
    assert "File name too long" in refused("report", run, "-o", tmp_path / ("x" * 300))
    assert "File name too long" in refused("report", run, "-o", tmp_path / ("x" * 300) / "page.html")


def test_a_report_is_made_without_torch(copied, tmp_path):
    program = (
        "import sys\nfrom fewshot_runner.cli.main import run\n"
        "assert run('report', sys.argv[1:]) == 0\nassert 'torch' not in sys.modules\n"
    )
    arguments = [str(copied()), "-o", str(tmp_path / "page.html"), "--no-analyse"]
    process = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
