"""What is said on the console and in the log of a run."""

import io

from rich.console import Console
from rich.tree import Tree

from fewshot_runner.engine.log import Narrator


def test_a_tree_that_is_wider_than_the_console_loses_nothing():
    written = io.StringIO()
    tree = Tree("config")
    tree.add("  ".join(f"key_{number} value" for number in range(20)))
    Narrator(Console(file=written, width=60, soft_wrap=True)).say(tree)
    assert all(f"key_{number}" in written.getvalue() for number in range(20))
