"""The most memory that a process takes, as the system counts it."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.apart import plain_environment

SCRIPTS = Path(__file__).parents[1]
UNIT = 1 << (20 if sys.platform == "darwin" else 10)  # of ru_maxrss in a megabyte
METER = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


def peak(words: list[str]) -> float:
    """The largest resident set of a process that has to succeed, in MB.

    A process inherits the peak of the one that starts it, which a new program does not lower. So a small one stands
    between: this one holds torch, and what was measured before.
    """
    with plain_environment():
        environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
        meter = [sys.executable, "-c", METER, *words]
        done = subprocess.run(meter, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}")
    return int(done.stdout) / UNIT
