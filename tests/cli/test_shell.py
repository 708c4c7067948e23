"""fsl among the programs of a shell: its version, pipes, colours and completion."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from processes import FSL, PATIENCE, started
from sweeps import manifest_of

from fewshot_runner.cli.main import COMMANDS
from fewshot_runner.runs import RunFolder

COLOUR = re.compile(r"\x1b\[(\d+;)*(3|4|9|10)[0-7]")  # of letters or paper, by ECMA-48; bold is none


def test_the_version_is_that_of_the_package():
    package = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    process = subprocess.run([*FSL, "--version"], capture_output=True, text=True, check=True)
    assert process.stdout == f"fsl {package['version']}\n"


@pytest.mark.parametrize("words", [["--help"], ["list"], ["list", "train"], ["train", "--help"], ["list", "--help"]])
def test_a_reader_that_has_gone_is_no_error(words):
    """As in `fsl list | head -1`, here before the first line."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as output:
        process = subprocess.run([*FSL, *words], stdout=output, stderr=subprocess.PIPE, text=True, env=environment)
    assert (process.returncode, process.stderr) == (0, "")


def test_a_training_of_which_nobody_reads_the_progress_any_more_goes_on(tiny, tmp_path):
    """As in `fsl train 2>&1 | head -1`."""
    words = [*FSL, "train", *tiny(), f"output_dir={tmp_path}"]
    with started(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) == 0
    [config] = tmp_path.rglob("config.yaml")
    assert RunFolder(config.parent).read_status()["state"] == "done"
    assert RunFolder(config.parent).read_summary()["results"]


@pytest.mark.parametrize("launcher", ["serial", "parallel"])
def test_so_does_a_sweep_to_its_table_where_only_the_progress_is_read_no_more(tiny, tmp_path, launcher):
    """As in `fsl train -m 2> >(head -1)`."""
    words = [*FSL, "train", "-m", *tiny(), "seed=0,1,2", "trainer.max_steps=2", f"launcher={launcher}"]
    with started([*words, f"output_dir={tmp_path}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr.readline()
        process.stderr.close()
        told = process.stdout.read()
        assert process.wait(PATIENCE) == 0
    assert [job["state"] for job in manifest_of(tmp_path)["jobs"]] == ["done"] * 3
    assert told.count(" ± ") == 3


def test_no_color_is_honoured(fsl, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("TERM", "xterm-256color")
    for value, has_colours in ((None, True), ("1", False)):
        monkeypatch.delenv("NO_COLOR", raising=False) if value is None else monkeypatch.setenv("NO_COLOR", value)
        assert (COLOUR.search(fsl("list", "method=pixels").out) is not None) is has_colours


@pytest.mark.parametrize(
    ("shell", "registers"),
    [
        ("bash", "-F hydra_bash_completion fsl"),
        ("zsh", "-F hydra_bash_completion fsl"),  # by bashcompinit
        ("fish", "complete -c fsl -x -a '(hydra_fish_completion)'"),
    ],
)
def test_completion_installs(shell, registers):
    process = subprocess.run([*FSL, "-sc", f"install={shell}"], capture_output=True, text=True, check=True)
    assert registers in process.stdout
    assert f"-sc query={'fish' if shell == 'fish' else 'bash'}" in process.stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [("fsl ", set(COMMANDS)), ("fsl train method=p", {"method=pixels", "method=prototypical"})],
)
def test_completion_gives_fish_a_line_a_word(line, expected):
    environment = {**os.environ, "COMP_LINE": line}  # fish has no COMP_POINT
    environment.pop("COMP_POINT", None)
    process = subprocess.run([*FSL, "-sc", "query=fish"], env=environment, capture_output=True, text=True, check=True)
    assert expected <= set(process.stdout.splitlines())
