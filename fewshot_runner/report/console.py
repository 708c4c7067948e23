"""Where reports are printed: standard output, as wide as the terminal, or wide enough for a table in a file."""

from rich.console import Console

WIDTH_ELSEWHERE = 180


def output() -> Console:
    """NO_COLOR and the terminal's abilities are honoured by rich."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH_ELSEWHERE)
