"""The built-in data set: characters of invented alphabets, drawn by hand, in the spirit of Omniglot; needs no files.

An alphabet is a style and a small library of stroke parts; a character puts one to five of these parts together, so
that the characters of an alphabet look alike. Each alphabet has its own drawers, as in Omniglot: a drawer slants,
stretches and rounds all characters in the same way, and each drawing displaces its strokes by smooth noise of its own.

Every image is a pure function of (seed, alphabet, character, drawer), which key the Philox streams it draws from. So
fewer alphabets, characters or drawers are the first ones of a larger set.

Shapes: S strokes, P points a stroke, M functions in the noise basis. A point is (x, y), with y down.
"""

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.random import Generator, Philox, SeedSequence
from PIL import Image, ImageDraw

from fewshot_runner.data.decode import DECODER
from fewshot_runner.data.source import Item, Source, Split
from fewshot_runner.errors import UserError

VERSION = 1  # raise it with any change that alters a pixel: caches are keyed by it
POINTS = 24
LIKENESS = 0.88  # cosine of two ink maps, below which characters are told apart
DRAWN_SIDE = 168  # pixels, at the least: drawn large, then reduced, ink has smooth edges
ALPHABET, DRAWER, DRAWING = range(3)  # the stages that draw random numbers
ALONG = np.linspace(0, 1, POINTS)  # a stroke
NOISE_BASIS = np.stack(  # displacements along a stroke: ever smaller waves, and either end on its own: (M, P)
    [size * np.cos(np.pi * order * ALONG) for order, size in enumerate([0.033, 0.034, 0.025, 0.014, 0.009, 0.006])]
    + [0.03 * np.exp(-ALONG / 0.1), 0.03 * np.exp((ALONG - 1) / 0.1)]
)


def _stream(seed: int, *key: int) -> Generator:
    return Generator(Philox(SeedSequence(entropy=seed, spawn_key=key)))


class Style:
    """What the characters of one alphabet have in common."""

    def __init__(self, random: Generator) -> None:
        upright = np.array([0.0, 0.5, 1.0, 1.5]) * np.pi + random.normal(0, 0.12)
        oblique = random.uniform(0, 2 * np.pi, size=random.integers(1, 5))
        self.directions = np.concatenate([upright, oblique])  # radians: headings of straight lines
        self.curved = random.uniform()  # probability that a segment is an arc
        self.turn = random.uniform(0.8, 2.8)  # radians: the typical turn of an arc
        self.segments = random.uniform(0.3, 1.6)  # about how many segments a part has beyond the first
        self.loops = random.beta(0.6, 4.0)  # probability that a part begins with a loop
        self.strokes = random.uniform(0.7, 2.7)  # about how many strokes a character has beyond the first
        self.joined = random.uniform(0.5, 1.0)  # probability that a stroke touches an earlier one
        self.repeated = random.uniform(0.0, 0.4)  # probability that a stroke repeats an earlier one beside it
        self.mirrored = random.uniform(0.0, 0.5)  # probability that a part is used mirrored
        self.parts = [_part(self, random) for _ in range(random.integers(3, 7))]


def _part(style: Style, random: Generator) -> np.ndarray:
    """One pen movement of straight and curved segments, centred, larger the more segments it has: (P, 2)."""
    heading, goes_on, path = random.choice(style.directions), True, [np.zeros((1, 2))]
    begins_with_loop = random.random() < style.loops
    count = 1 + min(random.poisson(style.segments), 4)
    for segment in range(count):
        length, turn = random.uniform(0.35, 1.0), 0.0
        if segment == 0 and begins_with_loop:
            length, turn = 2 * length, random.uniform(5.6, 6.6)
        elif random.random() < style.curved:
            turn = style.turn * random.uniform(0.6, 1.4)
        if not goes_on:
            corner = random.choice(style.directions)
            heading = corner if np.cos(corner - heading) > -0.86 else corner + np.pi / 2  # never straight back
        turn *= random.choice([-1, 1])
        along = heading + turn * ALONG
        steps = np.stack([np.cos(along), np.sin(along)], axis=1) * length / POINTS
        path.append(path[-1][-1] + np.cumsum(steps, axis=0))
        heading, goes_on = heading + turn, turn != 0 and random.random() < 0.5
    size = random.uniform(0.25, 0.65) + 0.15 * (count - 1) if random.random() < 0.95 else 0.08  # or a dot
    points = np.concatenate(path)  # (1 + segments * P, 2)
    travelled = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    part = [np.interp(ALONG * travelled[-1], travelled, coordinate) for coordinate in points.T]  # equal steps
    return _boxed(np.stack(part, axis=1)) * size


def _boxed(points: np.ndarray) -> np.ndarray:
    """The same points, their bounding box centred on the origin and its longer side 1."""
    every = tuple(range(points.ndim - 1))
    low, high = points.min(axis=every), points.max(axis=every)
    return (points - (low + high) / 2) / (high - low).max()


def _character(style: Style, random: Generator) -> np.ndarray:
    """Parts of the alphabet put together: (S, P, 2)."""
    strokes: list[np.ndarray] = []
    for _ in range(1 + min(random.poisson(style.strokes), 4)):
        stroke = style.parts[random.integers(len(style.parts))] * random.uniform(0.75, 1.25)
        if random.random() < style.mirrored:
            stroke = stroke * random.choice([[-1, 1], [1, -1]])
        if strokes:
            other = strokes[random.integers(len(strokes))]
            centre, aside = other.mean(axis=0), random.choice(np.eye(2)) * random.uniform(0.25, 0.6)
            if random.random() < style.repeated:
                stroke = (other - centre) * random.choice([[1, 1], [-1, 1], [1, -1]]) + centre + aside
            elif random.random() < style.joined:
                own = random.choice([0, POINTS // 2, POINTS - 1], p=[0.6, 0.2, 0.2])
                stroke = stroke - stroke[own] + other[random.choice([0, 6, 12, 18, POINTS - 1])]
            else:
                stroke = stroke + centre + aside * random.choice([-1, 1])
        strokes.append(stroke)
    return _boxed(np.stack(strokes))


def _lengths(character: np.ndarray) -> np.ndarray:
    return np.hypot(*np.moveaxis(np.diff(character, axis=1), 2, 0)).sum(axis=1)  # (S,)


def _is_legible(character: np.ndarray) -> bool:
    """Whether it is more than a dash, and its lines seldom lie on or close beside each other."""
    length = _lengths(character).sum()
    cells = np.unique(np.floor(character.reshape(-1, 2) / 0.1) @ [1.0, 100.0])
    return bool(np.ptp(character, axis=(0, 1)).min() > 0.3 and 1.3 < length < 5.5 and len(cells) > 9.3 * length)


def _ink_map(character: np.ndarray) -> np.ndarray:
    """A blurred 12 x 12 picture of unit length, to tell whether two characters look the same."""
    weights = np.repeat(_lengths(character), POINTS)
    grid = np.linspace(-0.5, 0.5, 12)
    near = np.exp(-(((character.reshape(-1, 2, 1) - grid) / 0.1) ** 2))  # (S * P, 2, 12)
    picture = ((near[:, 1] * weights[:, None]).T @ near[:, 0]).ravel()
    return picture / np.linalg.norm(picture)


@lru_cache(maxsize=256)
def _alphabet(seed: int, alphabet: int, characters: int) -> Sequence[np.ndarray]:
    """The characters of an alphabet, each unlike all before it."""
    random = _stream(seed, ALPHABET, alphabet)
    style, accepted, pictures, allowed = Style(random), [], [], LIKENESS
    while len(accepted) < characters:
        character = _character(style, random)
        picture = _ink_map(character)
        likeness = max((float(picture @ other) for other in pictures), default=0.0)
        if likeness < allowed and _is_legible(character):
            accepted.append(character * (_lengths(character).sum() / 2.5) ** 0.25)  # much ink takes more room
            pictures.append(picture)
            allowed = LIKENESS
        else:
            allowed += 0.002
            if allowed > 0.95:  # too few parts for so many characters
                style.parts.append(_part(style, random))
    return tuple(accepted)


def _affine(random: Generator, amount: float) -> np.ndarray:
    """A random turn, slant and stretch: (2, 2)."""
    turn, slant, wide, tall = amount * random.normal(0, [0.08, 0.16, 0.12, 0.12])
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return np.array([[np.exp(wide), 0.0], [slant, np.exp(tall)]]) @ rotation


class Drawer:
    """The habits of one hand; lengths in units of the paper's side. Sizes are those of Omniglot."""

    def __init__(self, random: Generator) -> None:
        self.affine = _affine(random, 1.0) * 0.54 * np.exp(random.uniform(-0.32, 0.32))  # (2, 2)
        self.shift = random.normal([-0.02, -0.02], 0.045)  # (2,)
        self.jitter = np.exp(random.normal(0, 0.3))
        self.rounding = random.uniform()  # of corners
        self.pen = 0.05 * np.exp(random.normal(0, 0.06))


def _drawing(character: np.ndarray, drawer: Drawer, random: Generator) -> np.ndarray:
    """The strokes as this drawer puts them on the paper this once: (S, P, 2), the paper from 0 to 1."""
    rounded = character.copy()
    rounded[:, 1:-1] += drawer.rounding * (character[:, :-2] + character[:, 2:] - 2 * character[:, 1:-1]) / 3
    noise = random.normal(0, drawer.jitter, size=(len(character), 2, len(NOISE_BASIS))) @ NOISE_BASIS  # (S, 2, P)
    strokes = (rounded + noise.swapaxes(1, 2)) @ (drawer.affine @ _affine(random, 0.6))
    low, high = strokes.min(axis=(0, 1)), strokes.max(axis=(0, 1))
    scale = min(1.0, 0.85 / (high - low).max())
    centre = drawer.shift + random.normal(0, 0.025, size=2)
    centre = np.clip(centre, -0.43 - scale * low, 0.43 - scale * high)  # keeps all ink on the paper
    return scale * strokes + centre + 0.5


def _inked(strokes: np.ndarray, pen: float, size: int) -> Image.Image:
    """Black ink on white paper, smooth at the edges."""
    reduction = max(2, -(-DRAWN_SIDE // size))
    side = size * reduction
    paper = Image.new("L", (side, side), 255)
    draw = ImageDraw.Draw(paper)
    width, radius = round(pen * side), round(pen * side) / 2
    for stroke in strokes * side:
        points = stroke.ravel().tolist()
        draw.line(points, fill=0, width=width)
        for x, y in zip(points[::2], points[1::2], strict=True):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)
    return paper.reduce(reduction)


class Glyphs(Source):
    """Images in mode "L", `size` pixels square, one by each drawer for each character of each alphabet.

    Split `alphabets`: of 60, the first 40 train, the next 8 validate, the last 12 test; else in proportion.
    """

    name = "glyphs"

    def __init__(
        self, *, alphabets: int = 60, characters: int = 20, drawers: int = 20, size: int = 56, seed: int = 0
    ) -> None:
        self.alphabets = _checked("alphabets", alphabets, at_least=3)
        self.characters = _checked("characters", characters, at_least=2)
        self.drawers = _checked("drawers", drawers, at_least=2)
        self.size = _checked("size", size, at_least=16, at_most=1024)
        self.seed = _checked("seed", seed, at_least=0)

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "version": VERSION, "decoder": DECODER, **vars(self)}

    def made_from(self) -> dict[str, Any]:
        return {"version": VERSION, "size": self.size, "seed": self.seed}

    def items(self) -> Sequence[Item]:
        return [
            Item(name=f"{name}/{drawer:02d}", class_name=name, group=name.split("/")[0])
            for name in self._classes()
            for drawer in range(1, self.drawers + 1)
        ]

    def image(self, index: int) -> Image.Image:
        shape = (self.alphabets, self.characters, self.drawers)
        alphabet, character, drawer = (int(i) for i in np.unravel_index(index, shape))
        hand = Drawer(_stream(self.seed, DRAWER, alphabet, drawer))
        random = _stream(self.seed, DRAWING, alphabet, character, drawer)
        strokes = _drawing(_alphabet(self.seed, alphabet, self.characters)[character], hand, random)
        return _inked(strokes, hand.pen, self.size)

    def split(self, name: str) -> Split:
        if name != "alphabets":
            raise UserError(f"dataset.split={name}: glyphs has no such split; choose `alphabets`")
        val, test = (max(1, round(self.alphabets * share / 60)) for share in (8, 12))
        classes = self._classes()
        a, b = -(val + test) * self.characters, -test * self.characters
        return Split(name=name, classes={"train": classes[:a], "val": classes[a:b], "test": classes[b:]})

    def _classes(self) -> list[str]:
        numbers = itertools.product(range(1, self.alphabets + 1), range(1, self.characters + 1))
        return [f"Alphabet_{alphabet:02d}/character{character:02d}" for alphabet, character in numbers]


def _checked(key: str, value: int, *, at_least: int, at_most: int = 2**31) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not at_least <= value <= at_most:
        raise UserError(f"dataset.source.{key}={value}: must be a whole number from {at_least} to {at_most}")
    return value
