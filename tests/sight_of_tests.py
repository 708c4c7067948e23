"""What a run sees of its tests, and when."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fewshot_runner.cli.protocols import KINDS
from fewshot_runner.data.dataset import Dataset
from fewshot_runner.data.images import Images
from fewshot_runner.data.ragged import RaggedImages
from fewshot_runner.engine.protocols.base import Protocol


def watch(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows by "viewer" or "protocol" when one of the test part is made, by "image" when one is read.

    Fixed runs belong to the test part as a whole.
    """
    seen: list[str] = []
    datasets: dict[int, Dataset] = {}  # by their images
    viewer, fixed_runs = Dataset.viewer, Dataset.fixed_runs

    def watched_viewer(self: Dataset, part: str, device: torch.device) -> object:
        datasets[id(self.images)] = self
        if part == "test":
            seen.append("viewer")
        return viewer(self, part, device)

    def watched_runs(self: Dataset, *arguments: Any) -> object:
        seen.append("viewer")
        return fixed_runs(self, *arguments)

    def watched_images(read: Callable) -> Callable:
        def watched(self: Images | RaggedImages, index: torch.Tensor, **options: Any) -> object:
            dataset = datasets.get(id(self))
            if dataset is None or np.isin(index.cpu() % len(self), dataset.images_of("test")).any():
                seen.append("image")
            return read(self, index, **options)

        return watched

    def watched_protocol(build: Callable) -> Callable:
        def watched(self: Protocol, *arguments: Any, **options: Any) -> None:
            if options.get("part", "test") == "test":  # fixed runs are of no other
                seen.append("protocol")
            build(self, *arguments, **options)

        return watched

    monkeypatch.setattr(Dataset, "viewer", watched_viewer)
    monkeypatch.setattr(Dataset, "fixed_runs", watched_runs)
    for kind in (Images, RaggedImages):
        for name in ("gather", "pictures"):
            monkeypatch.setattr(kind, name, watched_images(getattr(kind, name)))
    for kind in KINDS.values():
        monkeypatch.setattr(kind, "__init__", watched_protocol(kind.__init__))
    return seen
