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


def test_a_brief_narrator_tells_details_to_the_log_alone(tmp_path):
    for brief in (False, True):
        written, log = io.StringIO(), tmp_path / f"{brief}.log"
        narrator = Narrator(Console(file=written), brief=brief)
        with narrator.keeping(log):
            narrator.say("the config", is_detail=True)
            narrator.say("the method")
        assert log.read_text() == "the config\nthe method\n"
        assert written.getvalue() == ("the method\n" if brief else "the config\nthe method\n")


def test_what_takes_a_while_is_shown_on_a_terminal_alone():
    for is_terminal in (False, True):
        written = io.StringIO()
        with Narrator(Console(file=written, force_terminal=is_terminal)).doing("test 5way[1]shot"):
            pass
        assert ("test 5way[1]shot" in written.getvalue()) is is_terminal
