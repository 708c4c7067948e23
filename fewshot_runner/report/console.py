"""Where reports are printed: standard output, as wide as the terminal, or wide enough for a table in a file."""

from rich.console import Console

WIDTH_ELSEWHERE = 180


class Output(Console):
    """A console whose reader may go, as in `fsl list | head`: rich itself would end the program as one that failed."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def output() -> Console:
    """NO_COLOR and the terminal's abilities are honoured by rich."""
    console = Output(highlight=False)
    return console if console.is_terminal else Output(highlight=False, width=WIDTH_ELSEWHERE)
