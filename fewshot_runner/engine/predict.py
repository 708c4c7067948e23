"""Classifies pictures from files against labelled examples: one episode whose classes are a user's own.

Shapes: S support images, Q queries, N ways.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewshot_runner.data.batch import Episode
from fewshot_runner.data.decode import EXTENSIONS, decode, fit
from fewshot_runner.data.source import Source
from fewshot_runner.data.transforms import Standardise
from fewshot_runner.engine.device import Hardware
from fewshot_runner.errors import UserError
from fewshot_runner.methods.base import Method


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one picture with their scores, best first; the scores of all classes sum to 1."""

    image: str
    ranking: tuple[tuple[str, float], ...]

    def as_dict(self) -> dict[str, Any]:
        return {"image": self.image, "ranking": [{"class": name, "score": score} for name, score in self.ranking]}


def predict(
    method: Method,
    support: Source,
    pictures: Sequence[Path],
    *,
    image_shape: tuple[int, int, int],
    standardise: Standardise,
    hardware: Hardware,
    top: int,
) -> list[Prediction]:
    """One prediction a picture, in order. Pictures are answered one by one: none sees another."""
    channels, size, _ = image_shape
    items = support.items()
    names = sorted({item.class_name for item in items})
    if len(names) < 2:
        raise UserError("--support: a choice needs two classes or more; make a sub-folder of examples for each")
    examples = [fit(support.image(index), size, channels) for index in range(len(items))]
    queries = [fit(decode(picture, str(picture)), size, channels) for picture in pictures]

    def view(images: list[np.ndarray]) -> torch.Tensor:
        """uint8 arrays (C, H, W) to what the network sees, (1, B, C, H, W)."""
        return standardise(torch.from_numpy(np.stack(images)).to(hardware.device).float() / 255)[None]

    labels = torch.tensor([[names.index(item.class_name) for item in items]], device=hardware.device)
    episode = Episode(
        support=view(examples),
        support_labels=labels,
        query=view(queries),
        query_labels=torch.zeros(1, len(queries), dtype=torch.long, device=hardware.device),
        n_way=len(names),
    )
    with torch.no_grad(), hardware.autocast():
        scores = method.classify(episode)[0].float().softmax(-1)  # (Q, N)
    best = scores.topk(min(top, len(names)))
    return [
        Prediction(str(picture), tuple((names[n], s) for n, s in zip(number, score, strict=True)))
        for picture, number, score in zip(pictures, best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def pictures_of(paths: Sequence[Path]) -> list[Path]:
    """The pictures named, and those in the folders named, in a fixed order."""
    pictures = []
    for path in paths:
        if path.is_dir():
            inside = sorted(entry for entry in path.rglob("*") if entry.suffix.lower() in EXTENSIONS)
            if not inside:
                raise UserError(f"{path}: there is no picture in this folder")
            pictures += inside
        elif path.is_file():
            pictures.append(path)
        else:
            raise UserError(f"{path}: there is no such picture")
    return pictures
