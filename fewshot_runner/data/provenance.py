"""Which data a run has seen: what its folder, its checkpoints and its results say, and whether that still holds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Provenance:
    """Class names alone would hide that pictures were added, and names of pictures that they were mended.

    So there are three hashes, of sixteen hexadecimal digits each: of the split, of the images' names and classes, and
    of what a user's own files hold; None where these are not a user's, and so do not change. `copies` is how many test
    images are copies of others, of train or val; None where there are none.
    """

    dataset: str
    split: str
    split_hash: str
    images_hash: str
    files_hash: str | None = None
    copies: int | None = None

    def entries(self) -> dict[str, Any]:
        """What is written down; nothing of what is not known."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def changes(self, kept: Mapping[str, Any]) -> list[str]:
        """Where `kept`, the entries of a checkpoint or a run among others, says otherwise.

        What an earlier version did not write down is taken to be the same.
        """
        entries = self.entries().items()
        return [f"{key} was {kept[key]}, is {value}" for key, value in entries if kept.get(key, value) != value]
