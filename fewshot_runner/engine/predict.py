"""Classifies pictures from files: against labelled examples of a user's own classes, or by a trained head.

Shapes: S support images, Q queries, N ways, I individuals.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewshot_runner.data.batch import Episode
from fewshot_runner.data.decode import decode, evaluation_view, read_each, readable
from fewshot_runner.data.files import Directory
from fewshot_runner.data.source import Source
from fewshot_runner.data.sources.folder import left_out
from fewshot_runner.data.transforms import Standardise
from fewshot_runner.engine.answers import COMPARISONS_AT_ONCE, embeds_once, go_on
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.protocols.retrieval import beside_unknown, identity_similarities
from fewshot_runner.errors import UserError
from fewshot_runner.methods.base import Classifier, EmbeddingMethod, Method

Seen = TypeVar("Seen")

PIXELS_AT_ONCE = 64 * 224**2  # 64 photographs, or thousands of drawings: a method may adapt itself for each lot anew


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one picture with their scores, best first; the scores of all classes sum to 1."""

    image: str
    ranking: tuple[tuple[str, float], ...]

    def as_dict(self) -> dict[str, Any]:
        return {"image": self.image, "ranking": [{"class": name, "score": score} for name, score in self.ranking]}


@dataclass(frozen=True)
class ImagePipeline:
    """How a run sees a picture from a user's disk: as its evaluation saw those of its data set."""

    image_shape: tuple[int, int, int]
    shorter_side: int | None
    resample: str
    standardise: Standardise
    hardware: Hardware

    def view(self, picture: Image.Image) -> np.ndarray:
        """(C, H, W) uint8 of the network's size: what is kept of a photograph."""
        channels, size, _ = self.image_shape
        return evaluation_view(picture, size, channels, shorter_side=self.shorter_side, resample=self.resample)

    def __call__(self, views: Sequence[np.ndarray]) -> Tensor:
        """(B, C, H, W) on the device."""
        return self.standardise(torch.from_numpy(np.stack(views)).to(self.hardware.device).float() / 255)

    def lots(self, views: Iterable[Seen]) -> Iterator[list[Seen]]:
        """As many at a time as the network sees at once."""
        _, height, width = self.image_shape
        views = iter(views)
        while some := list(islice(views, max(1, PIXELS_AT_ONCE // (height * width)))):
            yield some


Answers = tuple[list[Prediction], list[UserError]]  # of the pictures that can be read, in order; of the others, why not


@dataclass(frozen=True)
class Unknown:
    """The label that means none of the known, and the similarity at which it stands among them."""

    label: str
    similarity: float


def predict(method: Method, support: Source, pictures: Sequence[Path], *, pipeline: ImagePipeline, top: int) -> Answers:
    """Each picture among the classes of `support`; none of the pictures sees another."""
    names, numbers, examples = _examples(support, pipeline)
    device, n_way = pipeline.hardware.device, len(names)
    labels = torch.from_numpy(numbers).to(device)[None]  # (1, S)
    with pipeline.hardware.inference(method):
        if embeds_once(method):
            features = _embedded(method, examples, pipeline)

            def classify(queries: Tensor) -> Tensor:
                """(Q, C, H, W) to (Q, N)."""
                at_once = max(1, COMPARISONS_AT_ONCE // len(features)) if method.compares_pairs else len(queries)
                lots = method.embed(queries).split(at_once)
                return torch.cat([method.score(features[None], labels, some[None], n_way)[0] for some in lots])
        else:
            images = torch.cat([pipeline(some) for some in pipeline.lots(examples)])

            def classify(queries: Tensor) -> Tensor:
                """(Q, C, H, W) to (Q, N), by a method that may adapt itself to all of the examples."""
                unknown = torch.zeros(1, len(queries), dtype=torch.long, device=device)
                return method.classify(Episode(images[None], labels, queries[None], unknown, n_way=n_way))[0]

        return _answers(classify, names, pictures, pipeline=pipeline, top=top)


def identify(
    method: EmbeddingMethod,
    support: Source,
    pictures: Sequence[Path],
    *,
    unknown: Unknown | None,
    pipeline: ImagePipeline,
    top: int,
) -> Answers:
    """Each picture among the individuals of `support` by their most similar image, as retrieval is tested."""
    names, numbers, examples = _examples(support, pipeline)
    if unknown is not None and unknown.label in names:
        raise UserError(
            f"--support: {unknown.label!r} means none of the known here, so it can have no examples; take that "
            "sub-folder away"
        )
    starts = np.searchsorted(numbers, np.arange(len(names)))
    columns, place = (names, None) if unknown is None else ([*names, unknown.label], unknown.similarity)

    def similarities(queries: Tensor) -> Tensor:
        """(Q, C, H, W) to (Q, I), or with the unknown label (Q, I + 1)."""
        of_individuals = identity_similarities(method, gallery, method.embed(queries), starts, go_on)
        return torch.from_numpy(beside_unknown(of_individuals, place))

    with pipeline.hardware.inference(method):
        gallery = _embedded(method, examples, pipeline)
        return _answers(similarities, columns, pictures, pipeline=pipeline, top=top)


def _examples(support: Source, pipeline: ImagePipeline) -> tuple[list[str], np.ndarray, Iterator[np.ndarray]]:
    """The names of the classes, and class by class each image's number (S,) and its view, read when it is asked for."""
    names, numbers = np.unique([item.class_name for item in support.items()], return_inverse=True)
    if len(names) < 2:
        raise UserError("--support: a choice needs two classes or more; make a sub-folder of examples for each")
    order = np.argsort(numbers, kind="stable")
    return names.tolist(), numbers[order], map(pipeline.view, readable(support.image, order.tolist()))


def _embedded(method: EmbeddingMethod, examples: Iterable[np.ndarray], pipeline: ImagePipeline) -> Tensor:
    """(S, ...) features."""
    return torch.cat([method.embed(pipeline(some)) for some in pipeline.lots(examples)])


def recognise(
    method: Classifier, classes: Sequence[str], pictures: Sequence[Path], *, pipeline: ImagePipeline, top: int
) -> Answers:
    """Each picture among the classes of training, by the trained head."""
    with pipeline.hardware.inference(method):
        return _answers(method.recognise, classes, pictures, pipeline=pipeline, top=top)


def _answers(
    classify: Callable[[Tensor], Tensor],
    names: Sequence[str],
    pictures: Sequence[Path],
    *,
    pipeline: ImagePipeline,
    top: int,
) -> Answers:
    """`classify`: (Q, C, H, W) to logits (Q, N) of the classes `names`."""
    predictions: list[Prediction] = []
    refused: list[UserError] = []
    views = read_each(lambda path: pipeline.view(decode(path, str(path))), pictures, refused)
    for some in pipeline.lots(views):
        paths, seen = zip(*some, strict=True)
        predictions += ranked(classify(pipeline(seen)), names, paths, top=top)
    return predictions, refused


def ranked(scores: Tensor, names: Sequence[str], pictures: Sequence[Path], *, top: int) -> list[Prediction]:
    """Logits (Q, N) as the likeliest of the classes `names` for each picture."""
    best = scores.float().softmax(-1).topk(min(top, len(names)))
    return [
        Prediction(str(picture), tuple((names[n], s) for n, s in zip(number, score, strict=True)))
        for picture, number, score in zip(pictures, best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def pictures_of(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The pictures named, and those in the folders named, found as a data set's are, in a fixed order; and what is left
    out of these, in a line a folder.
    """
    pictures, remarks = [], []
    for path in paths:
        if path.is_dir():
            listing = Directory(path).listing()
            inside = sorted(path / name for name in listing.images)
            said = left_out(listing)
            if not inside:
                raise UserError(f"{path}: {said[0] if said else 'there is no picture in this folder'}")
            pictures += inside
            remarks += [f"{path}: {line}" for line in said]
        elif path.is_file():
            pictures.append(path)
        else:
            raise UserError(f"{path}: there is no such picture")
    return pictures, remarks
