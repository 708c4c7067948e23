"""Text of users in one clean line: names, reasons and errors may hold line breaks, and commands to the terminal."""

import re

BREAK = re.compile(r"\s*[^\S ]\s*")  # any white space but plain spaces alone


def one_line(text: str) -> str:
    r"""`text` on one line: breaks become spaces, and what else cannot be printed is spelt out, an escape as "\x1b"."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in BREAK.sub(" ", text)
    )


def encodable(text: str) -> str:
    r"""`text` with what UTF-8 cannot hold spelt out: a byte of a folder's name that is none of it as "\udcff"."""
    return text.encode(errors="backslashreplace").decode()


def as_markup(text: str) -> str:
    """`text` on one line, for what takes rich's markup: a name in brackets is no colour."""
    from rich.markup import escape  # late: whoever compares nothing need not wait for rich

    return escape(one_line(text))
