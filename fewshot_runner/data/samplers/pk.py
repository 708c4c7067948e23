"""Batches of P classes and K images of each.

Shapes: P classes, B images, at most P K.
"""

import numpy as np

from fewshot_runner.data.batch import Batch
from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.draws import nth_missing
from fewshot_runner.data.samplers.base import KEY, Sampler
from fewshot_runner.data.samplers.pairs import classes_of_pairs
from fewshot_runner.errors import UserError
from fewshot_runner.randomness import numpy_generator


class PKSampler(Sampler):
    """P classes with K images each (Hermans, Beyer and Leibe 2017), so that a loss may use all pairs of a batch.

    `n_groups` > 0 takes the classes from that many groups (from `n_classes` of them at most), equally many of each or
    one more, so that classes that look alike come together; where a group has too few, any other classes fill up. A
    class of fewer than K images gives all it has.
    """

    def __init__(
        self,
        classes: ClassTable,
        *,
        n_classes: int,
        n_images: int,
        n_groups: int = 0,
        seed: int,
    ) -> None:
        super().__init__(classes, seed=seed)
        if n_classes < 2 or n_images < 2 or n_groups < 0:
            raise UserError(
                f"method.sampler: n_classes={n_classes}, n_images={n_images}, n_groups={n_groups}: a batch needs "
                "2 classes or more, 2 images or more of each (or there is no pair of one class), and 0 groups or more"
            )
        if n_classes > classes.n_classes:
            raise UserError(
                f"{KEY}n_classes={n_classes}: there are only {classes.n_classes} training classes; "
                f"lower {KEY}n_classes to {classes.n_classes} or less"
            )
        classes_of_pairs(classes)
        self.n_classes = n_classes
        self.n_images = n_images
        self.n_groups = min(n_groups, classes.n_groups, n_classes)

    def __getitem__(self, k: int) -> Batch:
        random = numpy_generator(self.seed, self.stream, k)
        chosen = self._draw_classes(random)  # (P,)
        sizes = np.minimum(self.classes.sizes[chosen], self.n_images)
        images = []
        for size in np.unique(sizes):  # one draw for all classes that give equally many images
            alike = chosen[sizes == size]
            images.append((alike, self.classes.draw_images(alike, random.random((len(alike), int(size))))))
        labels = np.concatenate([classes.repeat(drawn.shape[1]) for classes, drawn in images])
        return self._batch(labels, np.concatenate([drawn.ravel() for _, drawn in images]))

    def _draw_classes(self, random: np.random.Generator) -> np.ndarray:
        table = self.classes
        if not self.n_groups:
            return random.choice(table.n_classes, self.n_classes, replace=False)
        shares = self.n_classes // self.n_groups + (np.arange(self.n_groups) < self.n_classes % self.n_groups)
        drawn = []
        for group, share in zip(random.choice(table.n_groups, self.n_groups, replace=False), shares, strict=True):
            size = table.group_sizes[group]
            drawn.append(table.group_offsets[group] + random.choice(size, min(share, size), replace=False))
        grouped = np.concatenate(drawn)
        if not (missing := self.n_classes - len(grouped)):
            return grouped
        others = random.choice(table.n_classes - len(grouped), missing, replace=False)
        return np.concatenate([grouped, nth_missing(others, grouped)])
