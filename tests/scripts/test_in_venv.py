"""In which interpreter the scripts that are written in Python go on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize(("value", "expected"), [("1", ["here", "a", "b c"]), ("", [".venv", "a", "b c"])])
def test_a_script_goes_on_in_venv_unless_told_to_stay(tmp_path: Path, value: str, expected: list[str]) -> None:
    """With a .venv in which Python says that it is there, and no more."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(SCRIPTS / "_in_venv.py", tmp_path / "scripts")
    (tmp_path / "scripts" / "_environment").write_text(f'PATH="{tmp_path}/bin:$PATH"\n')
    (tmp_path / "bin" / "python").write_text('#!/bin/sh\nshift\nprintf "%s\\n" .venv "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    script = tmp_path / "scripts" / "script"
    script.write_text(
        "import sys\nfrom _in_venv import go_on_in_venv\ngo_on_in_venv()\nprint('here', *sys.argv[1:], sep='\\n')\n"
    )
    words = [sys.executable, str(script), "a", "b c"]
    answer = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "FSL_THIS_PYTHON": value}, cwd=tmp_path, check=True
    )
    assert answer.stdout.splitlines() == expected
