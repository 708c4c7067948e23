"""Samplers draw indices, never pixels. Item k is a pure function of (seed, stream, k) and the class table.

Shapes: E episodes, N ways, K shots, S = N K support images, Q queries, P classes or pairs.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch

from fewshot_runner.data.batch import Batch, Episode
from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.draws import draw_distinct
from fewshot_runner.data.episode_limits import check_episode, check_imbalance
from fewshot_runner.errors import UserError
from fewshot_runner.randomness import numpy_generator, uniforms

KEY = "method.sampler."  # where messages send the reader: the shape of a test is checked before its sampler is made


class Sampler(ABC):
    """An endless sequence of training items: `sampler[k]` is item k."""

    def __init__(self, classes: ClassTable, *, seed: int, stream: str = "train") -> None:
        self.classes = classes
        self.seed = seed
        self.stream = stream

    @abstractmethod
    def __getitem__(self, k: int) -> Episode | Batch:
        """Item k, holding indices."""

    def _images_of(self, classes: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """(..., k) indices of k different images for each class number in `classes` (...)."""
        within = draw_distinct(uniform, self.classes.sizes[classes])
        return self.classes.members[self.classes.offsets[classes][..., None] + within]

    def _batch(self, classes: np.ndarray, images: np.ndarray, pairs: np.ndarray | None = None) -> Batch:
        return Batch(
            images=torch.from_numpy(images),
            labels=torch.from_numpy(classes.astype(np.int64)),
            groups=torch.from_numpy(self.classes.class_groups[classes]),
            pairs=None if pairs is None else torch.from_numpy(pairs),
        )


class EpisodeSampler(Sampler):
    """N-way K-shot episodes; classes and images drawn without replacement, class and query order shuffled.

    `n_way` "all" takes every class. With `within_group`, the classes of an episode come from one group, drawn
    uniformly among the groups that have enough of them. An item is `episodes` episodes.

    `imbalance`, the concentration of a symmetric Dirichlet distribution, draws how an episode's queries are shared
    among its classes (Veilleux et al. 2021, https://arxiv.org/abs/2204.11181, with 2); None gives each `n_query`.
    No class has more than `most_queries` of them: what its images allow, and at most four even shares.
    """

    def __init__(
        self,
        classes: ClassTable,
        *,
        n_way: int | str,
        n_shot: int,
        n_query: int,
        within_group: bool = False,
        imbalance: float | None = None,
        episodes: int = 1,
        seed: int,
        stream: str = "train",
    ) -> None:
        super().__init__(classes, seed=seed, stream=stream)
        if episodes < 1:
            raise UserError(f"{KEY}episodes={episodes}: give a whole number of 1 or more")
        self.n_way = check_episode(
            classes, n_way=n_way, n_shot=n_shot, n_query=n_query, within_group=within_group, key=KEY,
            part="the training part",
        )  # fmt: skip
        self.n_shot = n_shot
        self.n_query = n_query
        self.imbalance = imbalance
        self.most_queries = n_query
        if imbalance is not None:
            self.most_queries = check_imbalance(
                classes, n_way=self.n_way, n_shot=n_shot, n_query=n_query, within_group=within_group,
                imbalance=imbalance, key=KEY,
            )  # fmt: skip
        self.episodes = episodes
        self.eligible_groups = np.flatnonzero(classes.group_sizes >= self.n_way) if within_group else None

    def __getitem__(self, k: int) -> Episode:
        return self.draw(k * self.episodes, (k + 1) * self.episodes)

    def draw(self, start: int, stop: int) -> Episode:
        """Episodes number `start` to `stop - 1`, whichever chunks they are drawn in."""
        n_way, per_class = self.n_way, self.n_shot + self.most_queries
        n_queries = n_way * self.n_query
        count = 1 + n_way + n_way * per_class + n_queries
        uniform = uniforms(self.seed, self.stream, range(start, stop), count)
        of_group, of_classes, of_images, of_order = np.split(uniform, np.cumsum([1, n_way, n_way * per_class]), axis=1)
        classes = self._draw_classes(of_group[:, 0], of_classes)  # (E, N)
        images = self._images_of(classes, of_images.reshape(-1, n_way, per_class))  # (E, N, K + Q/N)
        support = images[..., : self.n_shot].reshape(-1, n_way * self.n_shot)  # (E, S)
        counts = self._query_counts(start, stop)  # (E, N)
        asked = np.arange(self.most_queries) < counts[..., None]  # (E, N, most_queries), Q times True an episode
        query = images[..., self.n_shot :][asked].reshape(-1, n_queries)  # (E, Q)
        labels = np.arange(n_way)
        query_labels = np.broadcast_to(labels[:, None], asked.shape)[asked].reshape(-1, n_queries)  # (E, Q)
        order = of_order.argsort(axis=1)
        return Episode(
            support=torch.from_numpy(support),
            support_labels=torch.from_numpy(np.tile(labels.repeat(self.n_shot), (stop - start, 1))),
            query=torch.from_numpy(np.take_along_axis(query, order, axis=1)),
            query_labels=torch.from_numpy(np.take_along_axis(query_labels, order, axis=1)),
            n_way=n_way,
        )

    def _query_counts(self, start: int, stop: int) -> np.ndarray:
        """(E, N) queries of each class; an episode has as many in all whether they are balanced or not."""
        if self.imbalance is None:
            return np.full((stop - start, self.n_way), self.n_query)
        counts = np.empty((stop - start, self.n_way), dtype=np.int64)
        for row, episode in enumerate(range(start, stop)):
            random = numpy_generator(self.seed, f"{self.stream} imbalance", episode)
            shares = random.dirichlet(np.full(self.n_way, self.imbalance))
            asked = np.minimum(random.multinomial(self.n_way * self.n_query, shares), self.most_queries)
            while missing := self.n_way * self.n_query - asked.sum():  # what a full class leaves goes to the others
                room = asked < self.most_queries
                asked[random.choice(np.flatnonzero(room), min(missing, room.sum()), replace=False)] += 1
            counts[row] = asked
        return counts

    def _draw_classes(self, of_group: np.ndarray, of_classes: np.ndarray) -> np.ndarray:
        """(E, N) class numbers from uniforms (E,) and (E, N)."""
        if self.eligible_groups is None:
            return draw_distinct(of_classes, np.full(len(of_group), self.classes.n_classes))
        group = self.eligible_groups[(of_group * len(self.eligible_groups)).astype(np.int64)]
        return self.classes.group_offsets[group][:, None] + draw_distinct(of_classes, self.classes.group_sizes[group])


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
        if classes.n_classes < 2:
            raise UserError("pairs of different classes need at least 2 classes, and there is only 1; add classes")
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
        images_same = self._images_of(same, random.random((half, 2)))  # (P/2, 2)
        images_first = self._images_of(first, random.random((half, 1)))  # (P/2, 1)
        images_second = self._images_of(second, random.random((half, 1)))
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


def classes_of_pairs(classes: ClassTable) -> np.ndarray:
    """The numbers of the classes of 2 images or more; `UserError` where there are none: nothing could be learned."""
    paired = np.flatnonzero(classes.sizes >= 2)
    if not len(paired):
        raise UserError("same-class pairs need a class of 2 images or more; every class has one image")
    return paired


class PKSampler(Sampler):
    """P classes with K images each (Hermans, Beyer and Leibe 2017), so that a loss may use all pairs of a batch.

    `n_groups` > 0 takes the classes from that many groups, equally many of each, so that classes that look alike
    come together; where a group has too few, classes of other groups fill up. A class of fewer than K images gives
    all it has.

    `n_pairs` chooses pairs for losses that cannot afford all of them: every pair of one class, and of the pairs of
    two classes as many as are left, half of them within a group where there are so many.
    """

    def __init__(
        self,
        classes: ClassTable,
        *,
        n_classes: int,
        n_images: int,
        n_groups: int = 0,
        n_pairs: int | None = None,
        seed: int,
        stream: str = "train",
    ) -> None:
        super().__init__(classes, seed=seed, stream=stream)
        if n_pairs is not None and n_pairs <= n_classes * n_images * (n_images - 1) // 2:
            raise UserError(
                f"{KEY}n_pairs={n_pairs}: the pairs of one class are {n_classes} x {n_images} x "
                f"{n_images - 1} / 2 alone; give more, or null for all pairs"
            )
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
        self.n_groups = min(n_groups, classes.n_groups)
        self.n_pairs = n_pairs

    def __getitem__(self, k: int) -> Batch:
        random = numpy_generator(self.seed, self.stream, k)
        chosen = self._draw_classes(random)  # (P,)
        sizes = np.minimum(self.classes.sizes[chosen], self.n_images)
        images = []
        for size in np.unique(sizes):  # one draw for all classes that give equally many images
            alike = chosen[sizes == size]
            images.append((alike, self._images_of(alike, random.random((len(alike), int(size))))))
        labels = np.concatenate([classes.repeat(drawn.shape[1]) for classes, drawn in images])
        pairs = None if self.n_pairs is None else self._choose_pairs(labels, random)
        return self._batch(labels, np.concatenate([drawn.ravel() for _, drawn in images]), pairs)

    def _choose_pairs(self, labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """(n_pairs, 2) positions in a batch with these labels (B,); fewer where there are not so many pairs."""
        pairs = np.stack(np.triu_indices(len(labels), k=1), axis=1)  # (B (B - 1) / 2, 2)
        classes, groups = labels[pairs], self.classes.class_groups[labels[pairs]]
        same = classes[:, 0] == classes[:, 1]
        within = groups[:, 0] == groups[:, 1]
        near, far = random.permutation(pairs[~same & within]), random.permutation(pairs[~within])
        missing = self.n_pairs - same.sum()
        n_near = min(len(near), max(missing // 2, missing - len(far)))
        return np.concatenate([pairs[same], near[:n_near], far[: missing - n_near]])

    def _draw_classes(self, random: np.random.Generator) -> np.ndarray:
        table = self.classes
        if not self.n_groups:
            return random.choice(table.n_classes, self.n_classes, replace=False)
        share = -(-self.n_classes // self.n_groups)
        drawn = []
        for group in random.choice(table.n_groups, self.n_groups, replace=False):
            size = table.group_sizes[group]
            drawn.append(table.group_offsets[group] + random.choice(size, min(share, size), replace=False))
        grouped = np.concatenate(drawn)[: self.n_classes]
        if not (missing := self.n_classes - len(grouped)):
            return grouped
        others = np.setdiff1d(np.arange(table.n_classes), grouped, assume_unique=True)
        return np.concatenate([grouped, random.choice(others, missing, replace=False)])


class BatchSampler(Sampler):
    """Every image once an epoch in shuffled order; an epoch's last batch takes what is left.

    A single image that is left joins the batch before: batch norm cannot train on one value.
    """

    def __init__(self, classes: ClassTable, *, batch_size: int, seed: int, stream: str = "train") -> None:
        super().__init__(classes, seed=seed, stream=stream)
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
