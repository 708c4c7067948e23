"""What a run tells while it lasts: metrics.jsonl, TensorBoard scalars, and a progress bar or sparse lines."""

import json
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fewshot_runner.engine.tensorboard import TensorBoard
from fewshot_runner.errors import RunFailed, UserError
from fewshot_runner.runs import RunFolder

SECONDS_BETWEEN_LINES = 15.0
WIDTH_ELSEWHERE = 140  # of lines that no terminal shows


class Narrator:
    """Says things to people: on standard error, and in the run's log once there is one.

    With `brief`, details go to the log alone.
    """

    def __init__(self, console: Console | None = None, *, brief: bool = False) -> None:
        self.brief = brief
        if console is None:
            console = Console(stderr=True, highlight=False, soft_wrap=True)
            if not console.is_terminal:
                console.width = WIDTH_ELSEWHERE
        self.console = console
        self.file: Console | None = None

    @contextmanager
    def keeping(self, path: Path) -> Iterator[None]:
        """Meanwhile, everything said is also appended to `path`, and the traceback of what goes wrong."""
        with open(path, "a", buffering=1) as file:
            self.file = Console(file=file, highlight=False, width=WIDTH_ELSEWHERE, no_color=True)
            try:
                yield
            except (UserError, RunFailed) as error:
                file.write(f"{type(error).__name__}: {error}\n")
                raise
            except BaseException:
                file.write(traceback.format_exc())
                raise
            finally:
                self.file = None

    def say(self, what: RenderableType, *, is_detail: bool = False) -> None:
        is_line = isinstance(what, str)
        if is_line:  # a path with brackets is no markup
            what = escape(what)
        console = None if is_detail and self.brief else self.console
        for each in filter(None, (console, self.file)):
            each.print(what, soft_wrap=is_line)  # a line stays one; of a tree, what is too wide would be cut off

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Shows on a terminal what takes a while."""
        with self.console.status(escape(what)) if self.console.is_terminal else nullcontext():
            yield


class TrainingLog:
    """The figures of the steps. `start` is the step from which the run goes on; what was logged after it is dropped."""

    def __init__(self, run: RunFolder, narrator: Narrator, board: TensorBoard, *, start: int, max_steps: int) -> None:
        run.cut_metrics(start)
        self.metrics = open(run.metrics, "a")  # noqa: SIM115 - closed in __exit__
        self.board = board
        self.narrator = narrator
        self.max_steps = max_steps
        self.began = self.last_line = time.perf_counter()
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=narrator.console,
            transient=True,
            disable=not narrator.console.is_terminal,
        )
        self.bar = self.progress.add_task("train", total=max_steps, completed=start, figures="")
        self.latest: dict[str, float] = {}

    def __enter__(self) -> "TrainingLog":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()
        self.flush()
        self.metrics.close()
        self.board.close()

    def step(self, step: int, figures: dict[str, float], *, rate: float, images_per_second: float) -> None:
        """One logged training step: means since the last one, the learning rate, and images per second."""
        self._write(step, "train", {**figures, "learning_rate": rate}, images_per_second=images_per_second)
        self._show(step, figures)

    def validation(self, step: int, figures: dict[str, float]) -> None:
        self._write(step, "val", figures)
        self._show(step, {f"val {name}": value for name, value in figures.items()}, tell=step == self.max_steps)

    def testing(self, name: str) -> None:
        """The training is over, and a test begins."""
        self.progress.update(self.bar, description=f"test {escape(name)}")

    def flush(self) -> None:
        """All logged so far is on disk: called before each checkpoint, which never knows more than the log."""
        self.metrics.flush()
        os.fsync(self.metrics.fileno())
        self.board.flush()

    def _write(self, step: int, phase: str, figures: dict[str, float], images_per_second: float | None = None) -> None:
        wall: dict[str, Any] = {"seconds": round(time.perf_counter() - self.began, 3)}
        if images_per_second is not None:
            wall["images_per_second"] = round(images_per_second, 1)
        self.metrics.write(json.dumps({"step": step, phase: figures, "wall": wall}) + "\n")
        for name, value in figures.items():
            self.board.scalar(f"{name}/{phase}", value, step)

    def _show(self, step: int, figures: dict[str, float], *, tell: bool = False) -> None:
        """On a terminal, beside the bar; elsewhere a line now and then, and where `tell` asks for one."""
        self.latest.update(figures)
        line = "  ".join(f"{name} {value:.4f}" for name, value in self.latest.items())
        self.progress.update(self.bar, completed=step, figures=line)
        now = time.perf_counter()
        if self.progress.disable and (tell or now - self.last_line >= SECONDS_BETWEEN_LINES):
            self.last_line = now
            self.narrator.say(f"step {step}/{self.max_steps}  {line}")
