"""What a report shows of one run and no summary holds: accuracy by class and group, ways and shots, hardest tasks.

It takes the network and the data, so it is computed apart and kept in the run folder.

Shapes: E episodes, Q queries, N ways, C classes, I images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fewshot_runner.data.batch import Episode
from fewshot_runner.data.classes import ClassTable
from fewshot_runner.engine.answers import Between, embeds_once, episode_logits, go_on
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.evaluate import answering
from fewshot_runner.engine.metrics import query_accuracy
from fewshot_runner.engine.pictures import episode_picture, unit_range
from fewshot_runner.engine.protocols.base import Protocol
from fewshot_runner.engine.protocols.closed_set import ClosedSet
from fewshot_runner.engine.protocols.episodes import EpisodeProtocol, Episodes
from fewshot_runner.engine.surface import surface
from fewshot_runner.intervals import interval
from fewshot_runner.methods.base import Method

MOST_EPISODES, MOST_ADAPTED = 10_000, 300  # of methods that embed once, and of those that fit each task
HARDEST, MISTAKES = 6, 5  # episodes, and kinds of mistakes shown of each
HARDEST_IMAGES = 12
GAP = 4  # pixels


@dataclass
class Analysis:
    """`content` is for a JSON file; `pictures` are (height, width, 3) uint8 by the names that it gives them."""

    content: dict[str, Any]
    pictures: dict[str, np.ndarray] = field(default_factory=dict)


def analyse(
    method: Method,
    tests: Mapping[str, Protocol],
    *,
    hardware: Hardware,
    between: Between = go_on,
) -> Analysis:
    """Of the first test that shows images by class: episodes, or the classes of training among other images."""
    for name, protocol in tests.items():
        with answering(method, protocol, hardware):
            if isinstance(protocol, ClosedSet) and protocol.n_shot == "all":
                return _of_images(method, name, protocol, between)
            if isinstance(protocol, EpisodeProtocol):
                return _of_episodes(method, name, protocol, between)
    return Analysis({"test": None, "missing": ["no test of this run asks for classes by their images"]})


def _of_episodes(method: Method, name: str, protocol: EpisodeProtocol, between: Between) -> Analysis:
    n_episodes = min(len(protocol), MOST_EPISODES if embeds_once(method) else MOST_ADAPTED)
    right, answers = [], []
    for episode, logits in episode_logits(method, protocol.draw, n_episodes, protocol.viewer, between):
        right.append(query_accuracy(logits.float(), episode.query_labels))
        answers.append(logits.argmax(dim=-1).cpu())
    right, answers = torch.cat(right), torch.cat(answers)  # (E, Q)
    drawn = protocol.draw(0, n_episodes)
    content: dict[str, Any] = {"test": name, **protocol.describe(), "episodes": n_episodes, "unit": "episodes"}
    missing = []
    table = table_of(protocol)
    names = ClassNames(table)
    if table is None:
        missing.append("accuracy by class: the tasks of this test are fixed and do not name their classes")
    else:
        labels = names.of_queries(drawn)  # (E, Q)
        content["classes"] = [
            {"name": table.names[label], "group": table.group_names[table.class_groups[label]], **row}
            for label, row in by_part(right.numpy(), labels).items()
        ]
        if table.n_groups > 1:
            rows = by_part(right.numpy(), table.class_groups[labels])
            content["groups"] = [{"name": table.group_names[group], **row} for group, row in rows.items()]
    content["surface"] = None
    if not isinstance(protocol, Episodes) or not embeds_once(method):
        missing.append("ways and shots: only a method that embeds each image once, tested on episodes, allows that")
    else:
        content["surface"] = surface(
            method, table, protocol.viewer, eligible_groups=protocol.sampler.eligible_groups,
            seed=protocol.sampler.seed, between=between,
        )  # fmt: skip
    analysis = Analysis({**content, "hardest": [], "missing": missing})
    for number in right.mean(dim=-1).argsort(stable=True)[:HARDEST].tolist():
        _add_episode(analysis, protocol, number, drawn[number : number + 1], right[number], answers[number], names)
    return analysis


def by_part(right: np.ndarray, parts: np.ndarray) -> dict[int, dict[str, Any]]:
    """What queries earn (E, Q), by the part (a class, a group) that each belongs to (E, Q), the worst part first.

    A part's accuracy is the mean over the episodes that ask for it, so that its interval is one over episodes, or
    where each asks with a single query over these.
    """
    n_parts = int(parts.max()) + 1
    episode = np.arange(len(right))[:, None]
    cell, inverse = np.unique(episode * n_parts + parts, return_inverse=True)  # one an episode and part
    inverse = inverse.ravel()
    unit = "queries" if len(cell) == right.size else "episodes"
    means = np.bincount(inverse, weights=right.ravel()) / np.bincount(inverse)
    part = cell % n_parts
    order = np.argsort(part, kind="stable")
    numbers, starts = np.unique(part[order], return_index=True)
    rows = {}
    for number, values in zip(numbers, np.split(means[order], starts[1:]), strict=True):
        ci95 = interval(values, unit=unit)
        rows[int(number)] = {"accuracy": float(values.mean()), "ci95": ci95, "count": len(values)}
    return dict(sorted(rows.items(), key=lambda item: item[1]["accuracy"]))


def table_of(protocol: EpisodeProtocol) -> ClassTable | None:
    """The classes that the support of its episodes is drawn from; None for fixed runs, which do not tell them."""
    if isinstance(protocol, ClosedSet):
        return protocol.train
    return protocol.sampler.classes if isinstance(protocol, Episodes) else None


class ClassNames:
    """From indices of support images to the numbers and names of their classes."""

    def __init__(self, table: ClassTable | None) -> None:
        self.table = table
        if table is not None:
            self.labels = np.full(int(table.members.max()) + 1, -1)
            self.labels[table.members] = table.image_labels

    def of_ways(self, episodes: Episode) -> np.ndarray:
        """(E, N) the numbers of the classes of episodes of indices."""
        numbers = np.empty((len(episodes.support), episodes.n_way), dtype=np.int64)
        np.put_along_axis(numbers, episodes.support_labels.numpy(), self.labels[episodes.support.numpy()], axis=1)
        return numbers

    def of_queries(self, episodes: Episode) -> np.ndarray:
        """(E, Q) the number of the class of each query of episodes of indices."""
        return np.take_along_axis(self.of_ways(episodes), episodes.query_labels.numpy(), axis=1)

    def of_episode(self, episode: Episode) -> list[str]:
        """The names of the N classes of a single episode."""
        if self.table is None:
            return [f"class {label + 1}" for label in range(episode.n_way)]
        return [self.table.names[number] for number in self.of_ways(episode)[0]]


def _add_episode(
    analysis: Analysis,
    protocol: EpisodeProtocol,
    number: int,
    drawn: Episode,
    right: Tensor,
    answers: Tensor,
    names: ClassNames,
) -> None:
    """One of the hardest episodes: as a whole, and its mistakes beside an example of either class."""
    images = drawn.map(protocol.viewer.pictures)
    classes = names.of_episode(drawn)
    picture = f"episode-{number}.png"
    analysis.pictures[picture] = episode_picture(images, answers[None])
    truth = drawn.query_labels[0]
    wrong: dict[tuple[int, int], list[int]] = {}  # queries by their class and the answer
    for place in torch.nonzero(answers != truth).flatten().tolist():
        wrong.setdefault((int(truth[place]), int(answers[place])), []).append(place)
    mistakes = []
    for (meant, said), places in sorted(wrong.items(), key=lambda item: -len(item[1]))[:MISTAKES]:
        examples = [images.support[0][drawn.support_labels[0] == label][0] for label in (meant, said)]
        file = f"episode-{number}-mistake-{len(mistakes)}.png"
        analysis.pictures[file] = in_a_row([images.query[0][places[0]], *examples])
        mistakes.append({"truth": classes[meant], "answer": classes[said], "count": len(places), "picture": file})
    analysis.content["hardest"].append(
        {"number": number, "accuracy": float(right.mean()), "wrong": int((answers != truth).sum()),
         "queries": len(truth), "picture": picture, "mistakes": mistakes}
    )  # fmt: skip


def _of_images(method: Method, name: str, protocol: ClosedSet, between: Between) -> Analysis:
    """Ordinary classification: a query is an image of the test part, and each is answered once."""
    logits, truth = protocol.logits(method, between), protocol.query_labels
    right, classes = query_accuracy(logits, truth), protocol.names
    by_class = by_part(right[:, None].numpy(), truth[:, None].numpy())  # each image is an episode of one query
    rows = [{"name": classes[label], "group": "", **row} for label, row in by_class.items()]
    missing = ["ways and shots: this test asks for the classes of training, all at once"]
    described = {"test": name, **protocol.describe(), "unit": "images"}
    content = {**described, "classes": rows, "surface": None}
    analysis = Analysis({**content, "hardest": [], "missing": missing})
    loss = functional.cross_entropy(logits, truth, reduction="none")
    shares = logits.softmax(dim=-1)
    for place in loss.argsort(descending=True, stable=True)[:HARDEST_IMAGES].tolist():
        said, meant = int(logits[place].argmax()), int(truth[place])
        file = f"image-{place}.png"
        analysis.pictures[file] = in_a_row([protocol.viewer.pictures(protocol.query[place : place + 1])[0]])
        analysis.content["hardest"].append(
            {"number": place, "truth": classes[meant], "answer": classes[said], "picture": file,
             "score": float(shares[place, said]), "score_of_truth": float(shares[place, meant])}
        )  # fmt: skip
    return analysis


def in_a_row(images: Sequence[Tensor]) -> np.ndarray:
    """Images (C, H, W) of any range to one (H, width, 3) uint8, white between them."""
    row = unit_range(torch.stack(list(images)))  # (B, C, H, W)
    pixels = (row * 255).byte().expand(-1, 3, -1, -1)
    spaced = functional.pad(pixels, (0, GAP), value=255)  # (B, 3, H, W + GAP)
    return torch.cat(list(spaced), dim=2)[:, :, :-GAP].permute(1, 2, 0).numpy()
