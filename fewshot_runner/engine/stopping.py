"""When training ends before its last step: no better validation figure, a search that gives it up, or a signal."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

from fewshot_runner.errors import RunFailed, UserError

# Of a search: it is told a step and the figure of its validation, higher being better, and answers True to end the run.
Watch = Callable[[int, float], bool]


def merit(value: float, monitor: str) -> float:
    """A validation figure as something to be raised: a loss with its sign turned."""
    return -value if monitor.endswith("loss") else value


class EarlyStopping:
    """Remembers the best validation figure and how many validations have passed without a better one.

    `patience` None never stops. Figures are better when higher, "loss" ones when lower.
    """

    def __init__(self, *, patience: int | None, monitor: str) -> None:
        if patience is not None and patience < 1:
            raise UserError(f"trainer.patience={patience}: give 1 validation or more, or null to never stop early")
        self.patience = patience
        self.monitor = monitor
        self.best: float | None = None
        self.best_step = 0
        self.waited = 0

    def improves(self, figures: dict[str, float], step: int) -> bool:
        """Takes in a validation's figures; True where they are the best so far."""
        if self.monitor not in figures:
            raise UserError(f"trainer.monitor={self.monitor}: validation gives {', '.join(figures)}")
        value = figures[self.monitor]
        if self.best is None or merit(value, self.monitor) > merit(self.best, self.monitor):
            self.best, self.best_step, self.waited = value, step, 0
            return True
        self.waited += 1
        return False

    @property
    def exhausted(self) -> bool:
        return self.patience is not None and self.waited >= self.patience

    def state_dict(self) -> dict[str, float | int | None]:
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited}

    def load_state_dict(self, state: dict) -> None:
        self.best, self.best_step, self.waited = state["best"], state["best_step"], state["waited"]


class Pruned(RunFailed):
    """A search gave the run up. It has kept its best state, and what it needs to go on after all."""

    exit_code = 0

    def __init__(self, step: int, stopping: EarlyStopping) -> None:
        best = f"best {stopping.monitor} {stopping.best:.4f} at step {stopping.best_step}"
        super().__init__(f"behind the others at step {step}; {best}")


class Stopped(RunFailed):
    """The run was asked to stop by a signal, and has kept what it needs to go on."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number


class StopRequest:
    """Turns SIGINT and SIGTERM into a request that the run honours between two steps.

    A second signal of the kind takes effect at once, for the impatient. What came too late for the run to honour is
    handed on, at the end, to whoever else wants to know of it, such as a sweep. In another thread than the main one,
    which alone may handle signals, none is turned into anything.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self.requested and not isinstance(error, Stopped | KeyboardInterrupt):
            handler = self._previous[self.signal_number]
            if callable(handler) and handler is not signal.default_int_handler:
                signal.raise_signal(self.signal_number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        signal.signal(number, self._previous[number])

    @property
    def requested(self) -> bool:
        return self.signal_number is not None

    def check(self) -> None:
        """Raises `Stopped` where a signal has come."""
        if self.signal_number is not None:
            raise Stopped(self.signal_number)
