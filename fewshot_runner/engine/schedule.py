"""Schedules of an optimiser's options: a step's value as a closed form of the step and of the option's base value.

So there is nothing to resume. Groups of parameters may have base values of their own.
"""

import math

from fewshot_runner.errors import UserError


class Constant:
    def __call__(self, base: float, step: int, max_steps: int) -> float:
        return base


class Cosine:
    """From the base value to `floor` times it along half a cosine, after `warmup` steps of linear rise (Loshchilov and
    Hutter 2017)."""

    def __init__(self, *, warmup: int = 0, floor: float = 0.0) -> None:
        if warmup < 0 or not 0 <= floor <= 1:
            raise UserError(f"warmup={warmup}, floor={floor}: give 0 or more steps and a floor between 0 and 1")
        self.warmup = warmup
        self.floor = floor

    def __call__(self, base: float, step: int, max_steps: int) -> float:
        if step < self.warmup:
            return base * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, max_steps - self.warmup)
        return base * (self.floor + (1 - self.floor) * (1 + math.cos(math.pi * progress)) / 2)


class Exponential:
    """The base value times `factor` ** (step // `every`): factors do not compound upon one another."""

    def __init__(self, *, factor: float, every: int) -> None:
        if not 0 < factor <= 1 or every < 1:
            raise UserError(f"factor={factor}, every={every}: give a factor in (0, 1] and 1 step or more")
        self.factor = factor
        self.every = every

    def __call__(self, base: float, step: int, max_steps: int) -> float:
        return base * self.factor ** (step // self.every)


class Linear:
    """From `start` to `end` times the base value over the first `steps` steps (all of them unless given)."""

    def __init__(self, *, start: float = 1.0, end: float = 0.0, steps: int | None = None) -> None:
        if min(start, end) < 0 or (steps is not None and steps < 1):
            raise UserError(f"start={start}, end={end}, steps={steps}: give factors of 0 or more, and 1 step or more")
        self.start = start
        self.end = end
        self.steps = steps

    def __call__(self, base: float, step: int, max_steps: int) -> float:
        progress = min(1.0, step / (self.steps or max(1, max_steps)))
        return base * (self.start + (self.end - self.start) * progress)


class LinearFrom:
    """From `start`, the same for all, to the base value of each over the first `steps` steps, as Koch's momentum."""

    def __init__(self, *, start: float, steps: int) -> None:
        if start < 0 or steps < 1:
            raise UserError(f"start={start}, steps={steps}: give a value of 0 or more, and 1 step or more")
        self.start = start
        self.steps = steps

    def __call__(self, base: float, step: int, max_steps: int) -> float:
        return self.start + (base - self.start) * min(1.0, step / self.steps)
