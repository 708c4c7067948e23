"""For the scripts that are written in Python: they go on in .venv, which is made first where it is absent.

FSL_THIS_PYTHON=1 keeps them in the interpreter that they were started with, which then has to have what they import.
"""

import os
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent


def go_on_in_venv() -> None:
    """Replaces this process, unless it runs there already or is told to stay.

    Call it before anything is imported that .venv alone has.
    """
    if os.environ.get("FSL_THIS_PYTHON") == "1":
        return
    if Path(sys.prefix).resolve() == (SCRIPTS.parent / ".venv").resolve():
        return
    in_venv = 'source "$0/_environment" && cd "$OLDPWD" && exec python "$@"'
    os.execvp("bash", ["bash", "-c", in_venv, str(SCRIPTS), str(Path(sys.argv[0]).resolve()), *sys.argv[1:]])
