"""The classes of training, other images: ordinary classification, and heads fitted on a few images a class.

Shapes: E episodes, S support images, Q queries, N classes.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fewshot_runner.data.batch import Episode
from fewshot_runner.data.classes import ClassTable
from fewshot_runner.engine.answers import Between, episode_logits, recognise_all
from fewshot_runner.engine.features import AnyViewer
from fewshot_runner.engine.metrics import query_accuracy
from fewshot_runner.engine.protocols.base import Evaluation
from fewshot_runner.engine.protocols.episodes import EpisodeProtocol
from fewshot_runner.errors import UserError
from fewshot_runner.methods.base import Classifier, Method
from fewshot_runner.randomness import uniforms


class ClosedSet(EpisodeProtocol):
    """All images of `queries` among the classes of `train`.

    With `n_shot` "all" a method with a trained head answers with it, and any other takes all training images as
    support: each query is a task. With a number of shots, every episode draws a support set of that many training
    images a class, trained head or not. The queries are the same images in every episode, so the interval of the mean
    tells how far chance in the support moves it. What other test images would change is not in it, and it shrinks with
    the number of episodes however few images `queries` has; with `n_shot` "all" it is over the images.

    With `train` None, `head` names the outputs of a trained head in their order: it was trained already, maybe on other
    data. It answers among all of them, and `queries` may show some of them alone.
    """

    uses = ("n_shot", "episodes", "seed")
    of_known_classes = True

    def __init__(
        self,
        train: ClassTable | None,
        queries: ClassTable,
        viewer: AnyViewer,
        *,
        n_shot: int | Literal["all"],
        episodes: int,
        seed: int,
        part: str,
        bn_mode: str = "running",
        head: Sequence[str] = (),
    ) -> None:
        self.check_classes(train, queries, n_shot=n_shot, part=part, bn_mode=bn_mode, head=head)
        self.names = tuple(head if train is None else train.names)
        number = {name: label for label, name in enumerate(self.names)}
        self.train = train
        self.table = queries
        self.viewer = viewer
        self.n_shot = n_shot
        self.figures = ("accuracy", "loss") if n_shot == "all" else ("accuracy",)
        self.episodes = 1 if n_shot == "all" else episodes
        self.seed = seed
        self.part = part
        self.bn_mode = bn_mode
        numbers = np.array([number[name] for name in queries.names])
        self.query = torch.from_numpy(queries.members)  # (Q,)
        self.query_labels = torch.from_numpy(numbers[queries.image_labels])  # (Q,)

    @staticmethod
    def check_classes(
        train: ClassTable | None,
        queries: ClassTable,
        *,
        n_shot: int | Literal["all"],
        part: str,
        bn_mode: str = "running",
        head: Sequence[str] = (),
        key: str = "",
    ) -> None:
        """Raises `UserError` where these classes cannot be asked about, by their names and counts alone.

        `key` goes before the names of the settings, as "episode." does.
        """
        assert train is not None or (head and n_shot == "all")
        of_head = train is None
        names = tuple(head if of_head else train.names)
        known = set(names)
        strangers = [name for name in queries.names if name not in known]
        if strangers and of_head:
            shown = ", ".join(map(repr, strangers[:5])) + f" and {len(strangers) - 5} more" * (len(strangers) > 5)
            raise UserError(
                f"eval.protocol=closed_set: the trained head does not know {shown} of the {part} part; it answers with "
                f"the {len(names)} classes of its training ({names[0]!r} ...). Leave the images of other "
                "classes out, name the classes as in training, or fit a head on some images of these, as with "
                "episode.n_shot=1 dataset.split=images"
            )
        if strangers:
            raise UserError(
                f"eval.protocol=closed_set: {strangers[0]!r} is a class of the {part} part and not of training; "
                "choose a split that divides the images of each class, as dataset.split=images does where there is "
                "one, or eval.protocol=episodes"
            )
        if n_shot != "all" and n_shot < 1:
            raise UserError(f"{key}n_shot={n_shot}: give a whole number of 1 or more, or all for all training images")
        if n_shot != "all" and train.sizes.min() < n_shot:
            smallest = int(train.sizes.argmin())
            raise UserError(
                f"{key}n_shot={n_shot}: the class {train.names[smallest]!r} has only {train.sizes[smallest]} training "
                f"images; lower {key}n_shot"
            )
        if n_shot == "all" and bn_mode != "running":
            raise UserError(
                f"eval.bn_mode={bn_mode}: eval.protocol=closed_set with n_shot=all knows running statistics alone; "
                "give a number of shots, or eval.bn_mode=running"
            )

    def __len__(self) -> int:
        return self.episodes

    def draw(self, start: int, stop: int) -> Episode:
        train, n_episodes = self.train, stop - start
        if self.n_shot == "all":
            support, labels = train.members, train.image_labels  # (S,)
            support, labels = support[None].repeat(n_episodes, 0), labels[None].repeat(n_episodes, 0)
        else:
            count = train.n_classes * self.n_shot
            uniform = uniforms(self.seed, "closed_set", range(start, stop), count)
            uniform = uniform.reshape(n_episodes, train.n_classes, self.n_shot)
            support = train.draw_images(np.arange(train.n_classes), uniform).reshape(n_episodes, count)
            labels = np.tile(np.arange(train.n_classes).repeat(self.n_shot), (n_episodes, 1))
        return Episode(
            support=torch.from_numpy(support),
            support_labels=torch.from_numpy(labels),
            query=self.query.expand(n_episodes, -1),
            query_labels=self.query_labels.expand(n_episodes, -1),
            n_way=len(self.names),
        )

    def measure(self, method: Method, between: Between) -> Evaluation:
        if self.n_shot != "all":
            return super().measure(method, between)
        logits = self.logits(method, between)
        n_classes = len(self.names)
        cells = self.query_labels * n_classes + logits.argmax(-1)  # (Q,)
        return Evaluation(
            {
                "accuracy": query_accuracy(logits, self.query_labels).numpy(),
                "loss": functional.cross_entropy(logits, self.query_labels, reduction="none").numpy(),
            },
            self.describe(),
            unit="images",
            confusion=cells.bincount(minlength=n_classes**2).view(n_classes, n_classes).numpy(),
        )

    def logits(self, method: Method, between: Between) -> Tensor:
        """(Q, N) on the CPU, of the trained head, or with all training images as support where there is none."""
        if isinstance(method, Classifier):
            return recognise_all(method, self.viewer, self.query, between).float().cpu()
        [(_, [logits])] = episode_logits(method, self.draw, 1, self.viewer, between)
        return logits.float().cpu()

    def describe(self) -> dict[str, Any]:
        return {
            "protocol": "closed_set",
            "part": self.part,
            "n_way": len(self.names),
            "n_shot": self.n_shot,
            "n_query": len(self.query),
            "within_group": False,
            "episodes": self.episodes,
            "episode_seed": None if self.n_shot == "all" else self.seed,
            **self.mode,
        }
