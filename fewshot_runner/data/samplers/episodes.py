"""Episodes: small classification tasks, of a few classes and a few images of each.

Shapes: E episodes, N ways, K shots, S = N K support images, Q queries.
"""

import numpy as np
import torch

from fewshot_runner.data.batch import Episode
from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.draws import draw_distinct
from fewshot_runner.data.episode_limits import check_episode, check_imbalance
from fewshot_runner.data.samplers.base import KEY, Sampler
from fewshot_runner.errors import UserError
from fewshot_runner.randomness import numpy_generator, uniforms


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
        images = self.classes.draw_images(classes, of_images.reshape(-1, n_way, per_class))  # (E, N, K + most_queries)
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
