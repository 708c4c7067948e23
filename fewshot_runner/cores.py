"""How many cores there are, told without torch."""

import os


def available_cores() -> int:
    """The cores that this process may use (taskset and containers may grant fewer than the machine has)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
