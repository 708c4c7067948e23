"""The traps of few-shot code, and what guards each: a test whose name begins with `test_trap_NN`."""

import ast
import re
from pathlib import Path

import pytest

TRAPS = {
    1: "the right class at index 0, argmax over ties",
    2: "classes or images drawn with replacement; support and query overlap",
    3: "a positive pair that is one image twice; a negative pair of one class",
    4: "batch norm that sees the query batch",
    5: "query or class order that leaks the label",
    6: "transductive methods that assume balanced queries",
    7: "model selection on test",
    8: "best weights that alias the live weights; the final test on the last weights",
    9: "Omniglot protocols mixed",
    10: "rotations of a test character among training classes",
    11: "splits that depend on the state of a random generator",
    12: "intervals without the square root of n, or pooled over queries",
    13: "seed-to-seed variance ignored",
    14: "workers that repeat the same random numbers",
    15: "a learning-rate factor that compounds",
    16: "resuming that restarts the schedule, repeats an epoch or forgets the optimiser",
    17: "one random draw for a whole batch of augmentations",
    18: "affine fills with ink on paper-white images",
    19: "a number of threads that nobody noted; points doubled in TensorBoard after a resume",
    20: "timestamps alone as run-folder names",
}


def guards() -> dict[int, list[str]]:
    """The tests by the number in their names."""
    found: dict[int, list[str]] = {}
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and (number := re.match(r"test_trap_(\d\d)_", node.name)):
                found.setdefault(int(number[1]), []).append(f"{path.name}::{node.name}")
    return found


@pytest.mark.parametrize("number", range(1, 21))
def test_a_trap_is_guarded(number: int) -> None:
    assert guards().get(number), f"trap {number} ({TRAPS[number]}) has no test called test_trap_{number:02d}_..."


def test_every_guard_names_a_trap_there_is() -> None:
    assert set(guards()) <= set(TRAPS)
