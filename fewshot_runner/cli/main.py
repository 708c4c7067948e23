"""The command line: a table of commands, each in its own module, imported when it is called."""

import atexit
import gc
import importlib
import os
import signal
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType

from fewshot_runner.cli.garbage import no_search_for_garbage
from fewshot_runner.cli.shortage import shortage
from fewshot_runner.cli.unread import StandardError, discard

COMMANDS = {
    "train": "train a method, test its best checkpoint, leave a run folder (-m sweeps)",
    "eval": "evaluate a run, also on other data, episodes or protocols",
    "resume": "go on with an interrupted run",
    "predict": "classify your own pictures, by a trained head or a folder of examples",
    "compare": "runs side by side",
    "report": "one page with all that is known of runs",
    "list": "what a run can be composed of: data sets, models, methods and so on",
    "tb": "TensorBoard on this machine",
    "export": "a run's weights as safetensors, with its config",
    "doctor": "check the installation, the data folders and the hardware",
}
DONE, DEFECT, USER_ERROR = 0, 1, 2


def main() -> None:
    """Entry point of `fsl`."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: the next file that is opened would stand in its place
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    sys.stderr = StandardError(sys.stderr)
    atexit.register(flush_output)
    atexit.register(gc.freeze)  # else Python searches all that was imported for garbage, a twentieth of a second
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        sys.exit(DONE)
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"fsl {version('fewshot-runner')}")
        sys.exit(DONE)
    if arguments[0] in ("-sc", "--shell-completion"):
        sys.exit(complete(arguments))
    sys.exit(run(arguments[0], arguments[1:]))


def complete(arguments: list[str]) -> int:
    """Shell completion: eval "$(fsl -sc install=bash)". Commands are completed here, overrides by Hydra."""
    if len(arguments) < 2:
        return _complain("fsl -sc: give install=bash, install=zsh or install=fish")
    point = os.environ.get("COMP_POINT", "")
    before = os.environ.get("COMP_LINE", "")[: int(point) if point.isdecimal() else None]
    words = before.split()
    if arguments[1].startswith("query") and (len(words) < 2 or (len(words) == 2 and not before.endswith(" "))):
        start = words[1] if len(words) == 2 else ""
        print("\n".join(name for name in COMMANDS if name.startswith(start)))  # fish takes a line for one word
        return DONE
    if words and words[1] not in ("train", "eval"):  # the shell itself completes what is a path
        return DONE
    if words:  # Hydra knows nothing of the command in between
        os.environ["COMP_LINE"] = before.replace(f"{words[0]} {words[1]}", words[0], 1)
        os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    return run("train", arguments)


def run(command: str, arguments: list[str]) -> int:
    """Runs one command and turns what stops it into an exit code."""
    from fewshot_runner.errors import RunFailed, UserError

    if command not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean fsl {near[0]}?" if near else f"choose one of: {', '.join(COMMANDS)}"
        return _complain(f"fsl {command}: there is no such command; {hint}")
    try:
        command_module(command).run(arguments)
    except UserError as error:
        return _complain(str(error))
    except KeyboardInterrupt as error:
        print(f"\n{with_notes('interrupted', error)}", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        discard(sys.stdout)
        return DONE
    except RunFailed as error:
        return _complain(with_notes(str(error), error), error.exit_code)
    except Exception as error:
        if (reason := shortage(error)) is not None:
            return _complain(reason)
        traceback.print_exc()
        place = outside(error)
        said = f"came from {place}" if place else "is a defect of fsl; please report it with the lines above"
        print(f"\nThis {said}.", file=sys.stderr)
        return DEFECT
    return DONE


def flush_output() -> None:
    """Before Python does it at the exit, which would complain where the reader of our output has gone."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)


def command_module(command: str) -> ModuleType:
    with no_search_for_garbage():
        return importlib.import_module(f"fewshot_runner.cli.{command}")


def outside(error: Exception) -> Path | None:
    """The file of somebody's own that `error` came from; None where it is fsl's."""
    libraries = [Path(path).resolve() for path in sysconfig.get_paths().values()]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename).resolve()
        if file.is_relative_to(Path(__file__).resolve().parents[1]):
            return None
        if file.is_file() and not any(map(file.is_relative_to, libraries)):
            return file
    return None


def with_notes(message: str, error: BaseException) -> str:
    """The message, and what was noted on the error on its way here."""
    return "; ".join([message, *getattr(error, "__notes__", ())])


def _complain(message: str, code: int = USER_ERROR) -> int:
    print(f"fsl: {message}", file=sys.stderr)
    return code


def help_text() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  fsl {name:<{width}}  {what}" for name, what in COMMANDS.items())
    return f"""fsl: few-shot image classification from the command line

{lines}

First steps:
  fsl train                                  prototypical networks on the built-in characters
  fsl train method=siamese dataset=omniglot  a siamese network on real handwriting
  fsl train --help                           every setting; fsl <command> --help for the others
  eval "$(fsl -sc install=bash)"             completion in the shell (bash, zsh, fish)"""
