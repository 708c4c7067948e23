"""Schedules of an optimiser's options: the factor of the base value as a closed form of the step.

So there is nothing to resume.
"""

import math

from fewshot_runner.errors import UserError


class Constant:
    def __call__(self, step: int, max_steps: int) -> float:
        return 1.0


class Cosine:
    """From 1 to `floor` along half a cosine, after `warmup` steps of linear rise (Loshchilov and Hutter 2017)."""

    def __init__(self, *, warmup: int = 0, floor: float = 0.0) -> None:
        if warmup < 0 or not 0 <= floor <= 1:
            raise UserError(f"warmup={warmup}, floor={floor}: give 0 or more steps and a floor between 0 and 1")
        self.warmup = warmup
        self.floor = floor

    def __call__(self, step: int, max_steps: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, max_steps - self.warmup)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * progress)) / 2


class Exponential:
    """`factor` ** (step // `every`), from the base rate each time: factors do not compound upon one another."""

    def __init__(self, *, factor: float, every: int) -> None:
        if not 0 < factor <= 1 or every < 1:
            raise UserError(f"factor={factor}, every={every}: give a factor in (0, 1] and 1 step or more")
        self.factor = factor
        self.every = every

    def __call__(self, step: int, max_steps: int) -> float:
        return self.factor ** (step // self.every)


class Linear:
    """From `start` to `end` over the first `steps` steps (all of them unless given), then `end`."""

    def __init__(self, *, start: float = 1.0, end: float = 0.0, steps: int | None = None) -> None:
        if min(start, end) < 0 or (steps is not None and steps < 1):
            raise UserError(f"start={start}, end={end}, steps={steps}: give factors of 0 or more, and 1 step or more")
        self.start = start
        self.end = end
        self.steps = steps

    def __call__(self, step: int, max_steps: int) -> float:
        progress = min(1.0, step / (self.steps or max(1, max_steps)))
        return self.start + (self.end - self.start) * progress
