"""Where an image lies, told by a pattern such as "{part}/{image}" with what a row of a table says in the braces."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter

from fewshot_runner.errors import UserError


class PathTemplate:
    """A relative path with fields in braces; doubled braces stand for themselves.

    Raises `UserError` that names `key` where the braces do not match, where a field is none of `fields`, and where
    `required` is missing. `unsaid` says of fields that might have been known why they are not.
    """

    def __init__(
        self, text: str, *, key: str, fields: Sequence[str], required: str, unsaid: Mapping[str, str] | None = None
    ) -> None:
        def refused(fault: str) -> UserError:
            known = ", ".join(f"{{{name}}}" for name in fields)
            return UserError(f'{key}="{text}": {fault}; write a path with {known} in it, as "{{{required}}}"')

        if not isinstance(text, str):
            raise refused("this is no text")
        try:
            self._pieces = list(Formatter().parse(text))
        except ValueError as error:
            raise refused(f"its braces do not match ({error})") from error
        for _, name, spec, conversion in self._pieces:
            if name is None:
                continue
            if spec or conversion:
                raise refused(f"{{{name}}} takes nothing after its name")
            if unsaid and name in unsaid:
                raise refused(f"{{{name}}} is not known, as {unsaid[name]}")
            if name not in fields:
                near = difflib.get_close_matches(name, fields, n=1)
                raise refused(f"{{{name}}} is no field" + (f" (did you mean {{{near[0]}}}?)" if near else ""))
        if required not in [name for _, name, _, _ in self._pieces]:
            raise refused(f"without {{{required}}} all images would be one file")

    def fill(self, values: Mapping[str, str]) -> str:
        """The path, normalised and with slashes."""
        path = "".join(literal + (values[name] if name is not None else "") for literal, name, _, _ in self._pieces)
        return Path(os.path.normpath(path)).as_posix()
