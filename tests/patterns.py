"""A world small enough for unit tests: 24 noisy 8 x 8 patterns in 8 groups."""

from typing import Any

import numpy as np
import torch

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.images import Images
from fewshot_runner.data.loader import Viewer
from fewshot_runner.data.transforms import Standardise
from fewshot_runner.engine.protocols.episodes import Episodes
from fewshot_runner.facts import Facts

SIZE, PER_CLASS, PER_GROUP = 8, 8, 3
PARTS = {"train": range(12), "val": range(12, 18), "test": range(18, 24)}
FACTS = Facts(image_shape=(1, SIZE, SIZE), n_classes=12, n_way=4)


class World:
    """Pixels, and per part the table, the viewer and the episodes. `seen` collects the index of every image viewed."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        templates = torch.rand(24, 1, 1, SIZE, SIZE, generator=random)
        noisy = templates + 0.45 * torch.randn(24, PER_CLASS, 1, SIZE, SIZE, generator=random)
        self.pixels = (noisy.clamp(0, 1) * 255).byte().flatten(0, 1)  # (I, 1, SIZE, SIZE)
        self.labels = np.arange(24).repeat(PER_CLASS)
        self.seen: list[torch.Tensor] = []
        images = Images(self.pixels)
        gather = images.gather

        def recording_gather(index: torch.Tensor, **options: Any) -> torch.Tensor:
            self.seen.append(index)
            return gather(index, **options)

        images.gather = recording_gather  # type: ignore[method-assign]
        self.viewer = Viewer(images, Standardise(), symmetries=False, device=torch.device("cpu"))

    def table(self, part: str) -> ClassTable:
        names = [f"class{c:02d}" for c in range(24)]
        groups = [f"group{c // PER_GROUP}" for c in range(24)]
        return ClassTable.build(self.labels, names, groups, np.flatnonzero(np.isin(self.labels, PARTS[part])))

    def protocol(self, part: str, *, episodes: int = 20, n_way: int = 4, n_shot: int = 1, n_query: int = 3) -> Episodes:
        return Episodes(
            self.table(part), self.viewer, n_way=n_way, n_shot=n_shot, n_query=n_query, within_group=False,
            episodes=episodes, seed=0, part=part,
        )  # fmt: skip
