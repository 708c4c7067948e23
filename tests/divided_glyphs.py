"""The built-in glyphs, divided by images as well and with runs that are fixed: data that every protocol can ask of."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from fewshot_runner.data.source import FixedRuns, Item, Run, Split
from fewshot_runner.data.sources.glyphs import Glyphs

BY_IMAGES = ("dataset.source._target_=divided_glyphs.DividedGlyphs", "dataset.split=images", "dataset.symmetries=none")
RUNS = "+dataset.runs={fixed:{_target_:divided_glyphs.GlyphRuns}}"
ASKED = {
    "episodes": (),
    "runs": (RUNS,),
    "closed_set": (*BY_IMAGES, "eval.episodes=2"),
    "verification": ("eval.pairs=20",),
    "retrieval": (*BY_IMAGES, "trainer.monitor=map_at_5"),
}


def asked_by(protocol: str) -> tuple[str, ...]:
    """The overrides under which a run on glyphs is tested by `protocol`."""
    return (f"eval.protocol={protocol}", "trusted_packages=[divided_glyphs]", *ASKED[protocol])


class DividedGlyphs(Glyphs):
    """In the split `images`, the last two drawers of every character test, and the two before them validate."""

    def split(self, name: str) -> Split:
        if name != "images":
            return super().split(name)
        images: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for number, item in enumerate(self.items()):
            left = self.drawers - number % self.drawers
            images["test" if left <= 2 else "val" if left <= 4 else "train"].append(item.name)
        return Split(name, dict.fromkeys(images, self._classes()), images)


class GlyphRuns(FixedRuns):
    """Two one-shot tasks, each with one query of three characters."""

    name = "glyph_runs"
    of_splits = ("alphabets",)

    def __init__(self) -> None:
        self.glyphs = Glyphs(alphabets=3, characters=3, drawers=2, seed=1)

    def identity(self) -> dict[str, Any]:
        return {**self.glyphs.identity(), "name": self.name}

    def items(self) -> Sequence[Item]:
        return self.glyphs.items()

    def image(self, index: int) -> Image.Image:
        return self.glyphs.image(index)

    def runs(self) -> Sequence[Run]:
        numbers = (0, 1, 2)
        first, second = (
            Run([start + 2 * n for n in numbers], numbers, [start + 2 * n + 1 for n in numbers], numbers)
            for start in (0, 6)
        )
        return [first, second]
