"""Pairs of images, of one class or of two.

Shapes: P pairs.
"""

import numpy as np

from fewshot_runner.data.batch import Batch
from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.samplers.base import KEY, Sampler
from fewshot_runner.errors import UserError
from fewshot_runner.randomness import numpy_generator


class PairSampler(Sampler):
    """Half of the pairs show one class in two different images, half show two classes.

    `negatives_in_group` is the share of the different-class pairs whose classes belong to one group (an alphabet);
    the others belong to two groups. With None, and without groups, every pair of classes is equally likely.
    """

    def __init__(
        self,
        classes: ClassTable,
        *,
        n_pairs: int,
        negatives_in_group: float | None = 0.5,
        seed: int,
        stream: str = "train",
    ) -> None:
        super().__init__(classes, seed=seed, stream=stream)
        if n_pairs < 2 or n_pairs % 2:
            raise UserError(f"{KEY}n_pairs={n_pairs}: give an even number of 2 or more, half of them same-class pairs")
        if negatives_in_group is not None and not 0 <= negatives_in_group <= 1:
            raise UserError(
                f"{KEY}negatives_in_group={negatives_in_group}: give a share between 0 and 1, or null for any two "
                "classes"
            )
        check_pairs(classes)
        self.n_pairs = n_pairs
        self.paired_classes = classes_of_pairs(classes)
        group_of = classes.class_groups
        self.grouped_classes = np.flatnonzero(classes.group_sizes[group_of] >= 2)
        if classes.n_groups == 1:
            negatives_in_group = 1.0
        elif not len(self.grouped_classes):
            negatives_in_group = 0.0
        self.n_in_group = None if negatives_in_group is None else round(negatives_in_group * (n_pairs // 2))

    def __getitem__(self, k: int) -> Batch:
        random = numpy_generator(self.seed, self.stream, k)
        half = self.n_pairs // 2
        same = random.choice(self.paired_classes, half)  # (P/2,)
        first, second = self._draw_different(random, half)
        images_same = self.classes.draw_images(same, random.random((half, 2)))  # (P/2, 2)
        images_first = self.classes.draw_images(first, random.random((half, 1)))  # (P/2, 1)
        images_second = self.classes.draw_images(second, random.random((half, 1)))
        images = np.concatenate([images_same.ravel(), np.concatenate([images_first, images_second], 1).ravel()])
        labels = np.concatenate([same.repeat(2), np.stack([first, second], 1).ravel()])
        return self._batch(labels, images, pairs=np.arange(2 * self.n_pairs).reshape(-1, 2))

    def _draw_different(self, random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Two (count,) rows of class numbers that differ in every column, `n_in_group` of one group first."""
        table, inside = self.classes, self.n_in_group
        if inside is None:
            first = random.integers(table.n_classes, size=count)
            other = random.integers(table.n_classes - 1, size=count)
            return first, other + (other >= first)
        first = np.concatenate(
            [random.choice(self.grouped_classes, inside), random.integers(table.n_classes, size=count - inside)]
        )
        group = table.class_groups[first]
        start, size = table.group_offsets[group], table.group_sizes[group]
        other_in_group = (random.random(count) * (size - 1)).astype(np.int64)
        other_in_group = start + other_in_group + (start + other_in_group >= first)
        other_group = (random.random(count) * (table.n_classes - size)).astype(np.int64)
        other_group += np.where(other_group >= start, size, 0)
        return first, np.where(np.arange(count) < inside, other_in_group, other_group)


def check_pairs(classes: ClassTable) -> None:
    """Raises `UserError` where no pair shows one class, or none shows two; the counts alone decide it."""
    if classes.n_classes < 2:
        raise UserError("pairs of different classes need at least 2 classes, and there is only 1; add classes")
    classes_of_pairs(classes)


def classes_of_pairs(classes: ClassTable) -> np.ndarray:
    """The numbers of the classes of 2 images or more; `UserError` where there are none: nothing could be learned."""
    paired = np.flatnonzero(classes.sizes >= 2)
    if not len(paired):
        raise UserError("same-class pairs need a class of 2 images or more, and every class has one image; add images")
    return paired
