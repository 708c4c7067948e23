"""Overrides that make a run small enough for a test, whichever method or recipe it is of."""

from collections.abc import Mapping
from typing import Any

GLYPHS = (
    "dataset=glyphs",
    "++dataset.source.alphabets=6",
    "++dataset.source.characters=6",
    "++dataset.source.drawers=8",
    "episode.n_way=4",
    "episode.n_shot=1",
    "episode.n_query=2",
)
HARDWARE = ("hardware.device=cpu", "hardware.threads=1")
# What a sampler's size is lowered to, whichever sampler has it.
AT_MOST = {"n_way": 4, "n_shot": 2, "n_query": 2, "episodes": 2, "n_classes": 6, "n_images": 3, "n_groups": 2,
           "n_pairs": 8, "batch_size": 12}  # fmt: skip


def smaller_sampler(sampler: Mapping[str, Any]) -> list[str]:
    return [
        f"method.sampler.{key}={min(value, AT_MOST[key])}"
        for key, value in sampler.items()
        if key in AT_MOST and isinstance(value, int)
    ]
