"""Batches of images, whatever their classes.

Shapes: I images.
"""

import numpy as np

from fewshot_runner.data.batch import Batch
from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.samplers.base import KEY, Sampler
from fewshot_runner.errors import UserError
from fewshot_runner.randomness import numpy_generator


class BatchSampler(Sampler):
    """Every image once an epoch in shuffled order; an epoch's last batch takes what is left.

    A single image that is left joins the batch before: batch norm cannot train on one value.
    """

    def __init__(self, classes: ClassTable, *, batch_size: int, seed: int) -> None:
        super().__init__(classes, seed=seed)
        if batch_size < 1:
            raise UserError(f"{KEY}batch_size={batch_size}: give a whole number of 1 or more")
        self.batch_size = batch_size
        n_full, n_left = divmod(len(classes.members), batch_size)
        self.n_batches = max(1, n_full + (n_left > 1))
        self.labels = classes.image_labels
        self._kept: tuple[int, np.ndarray] | None = None

    def __getitem__(self, k: int) -> Batch:
        epoch, position = divmod(k, self.n_batches)
        is_last = position == self.n_batches - 1
        chosen = self._order(epoch)[position * self.batch_size : None if is_last else (position + 1) * self.batch_size]
        return self._batch(self.labels[chosen], self.classes.members[chosen])

    def _order(self, epoch: int) -> np.ndarray:
        """(I,) the images of an epoch in their order; that of the epoch last asked for is kept."""
        if self._kept is None or self._kept[0] != epoch:
            self._kept = epoch, numpy_generator(self.seed, self.stream, epoch).permutation(len(self.labels))
        return self._kept[1]
