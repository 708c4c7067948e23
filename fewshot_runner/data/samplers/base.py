"""The contract of a sampler."""

from abc import ABC, abstractmethod

import numpy as np
import torch

from fewshot_runner.data.batch import Batch, Episode
from fewshot_runner.data.classes import ClassTable

# What a message puts before the name of a setting. The samplers of tests never have to say it: whoever makes one has
# checked the test's own settings, and named them.
KEY = "method.sampler."


class Sampler(ABC):
    """An endless sequence of training items: `sampler[k]` is item k."""

    def __init__(self, classes: ClassTable, *, seed: int, stream: str = "train") -> None:
        self.classes = classes
        self.seed = seed
        self.stream = stream

    @abstractmethod
    def __getitem__(self, k: int) -> Episode | Batch:
        """Item k, holding indices."""

    def _batch(self, classes: np.ndarray, images: np.ndarray, pairs: np.ndarray | None = None) -> Batch:
        return Batch(
            images=torch.from_numpy(images),
            labels=torch.from_numpy(classes.astype(np.int64)),
            groups=torch.from_numpy(self.classes.class_groups[classes]),
            pairs=None if pairs is None else torch.from_numpy(pairs),
        )
