"""Pairs of images to be judged, none of them twice.

A pair is of one of three kinds: images of one class, of two classes of a group, of classes of two groups.

Shapes: I images, P pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat

import numpy as np

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.samplers import PairSampler
from fewshot_runner.randomness import numpy_generator

ITEMS = 20  # of a sampler, before pairs are drawn without regard to their classes
FEW = 4  # times as many pairs as are wanted: waiting until the rarest of so few have come would take long


@dataclass(frozen=True, eq=False)
class Pairs:
    """`images` (P, 2) image indices; `same` (P,) says whether a pair shows one class."""

    images: np.ndarray
    same: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def draw(cls, classes: ClassTable, *, n_pairs: int, seed: int, stream: str) -> "Pairs":
        """`n_pairs` different pairs, or as many as there are, the same ones for the same seed and stream.

        Half show one class, so that chance is right half of the time: where one kind has fewer pairs, the other gives
        no more. Half of the others stay within a group, or what its groups and the rest have.

        They are the pairs of item 0 of a `PairSampler`, and those of further items in the place of every repeat; where
        a kind has hardly more pairs than are wanted, each of them is equally likely.
        """
        sampler = PairSampler(classes, n_pairs=n_pairs, seed=seed, stream=stream)
        starts, counts = _partners(classes)
        same, near, far = counts.sum(axis=1).tolist()
        half = min(n_pairs // 2, same, near + far)
        n_near = min(near, max(round(half / 2), half - far))
        random = numpy_generator(seed, f"{stream} few")
        drawn = []
        for kind, wanted in enumerate((half, n_near, half - n_near)):
            there = counts[kind].sum()
            numbered = partial(_numbered, classes=classes, starts=starts[kind], counts=counts[kind])
            if not wanted or there <= FEW * wanted:
                drawn.append(numbered(random.choice(there, wanted, replace=False)))
            else:
                at_random = (numbered(random.integers(most, size=wanted)) for most in repeat(there))
                drawn.append(_drawn(sampler, kind, wanted, at_random))
        return cls(np.concatenate(drawn), np.arange(2 * half) < half)


def _partners(classes: ClassTable) -> tuple[np.ndarray, np.ndarray]:
    """(3, I) where the later images begin that make a pair of each kind with an image, and (3, I) how many they are.

    Both by position in `members`, where classes and groups lie together: so no pair is ever listed to be counted.
    """
    labels = classes.image_labels
    end_of_class = classes.offsets[1:][labels]
    end_of_group = classes.offsets[classes.group_offsets[1:]][classes.class_groups[labels]]
    own = np.arange(len(labels))
    bounds = np.stack([own + 1, end_of_class, end_of_group, np.full_like(own, len(own))])  # (4, I)
    return bounds[:-1], np.diff(bounds, axis=0)


def _numbered(numbers: np.ndarray, classes: ClassTable, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(P, 2) the pairs of these numbers (P,), counted through image by image; `starts` and `counts` (I,)."""
    ends = counts.cumsum()
    first = np.searchsorted(ends, numbers, side="right")
    second = starts[first] + numbers - (ends - counts)[first]
    return classes.members[np.stack([first, second], axis=1)]


def _drawn(sampler: PairSampler, kind: int, wanted: int, at_random: Iterator[np.ndarray]) -> np.ndarray:
    """(P, 2) different pairs: those of item 0 at their places, and new ones of further items for its repeats.

    A sampler draws classes evenly. Where it has come to the end of small ones, the few that are large give it hardly
    more: what is then missing is taken `at_random` from all pairs of the kind.
    """
    pairs = np.resize(_of_item(sampler, 0, kind), (wanted, 2))  # once more from its beginning where it has fewer
    k = 0
    while len(places := np.flatnonzero(_repeats(pairs))):
        k += 1
        further = _of_item(sampler, k, kind) if k < ITEMS else next(at_random)
        new = further[~_repeats(np.concatenate([pairs, further]))[wanted:]][: len(places)]
        pairs[places[: len(new)]] = new
    return pairs


def _of_item(sampler: PairSampler, k: int, kind: int) -> np.ndarray:
    """(P, 2) the pairs of a kind in item k."""
    item = sampler[k]
    ends = np.cumsum([sampler.n_pairs // 2, sampler.n_in_group])
    return np.split(item.images[item.pairs].numpy(), ends)[kind]


def _repeats(pairs: np.ndarray) -> np.ndarray:
    """(P,) whether the same two images, in whichever order, make an earlier pair."""
    low, high = np.sort(pairs, axis=1).T
    repeats = np.ones(len(pairs), dtype=bool)
    repeats[np.unique(low * (high.max() + 1) + high, return_index=True)[1]] = False
    return repeats
