"""fsl as a process of its own."""

import sys
from pathlib import Path

SCRIPT = Path(sys.executable).with_name("fsl")
FSL = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-c", "from fewshot_runner.cli.main import main; main()"]
