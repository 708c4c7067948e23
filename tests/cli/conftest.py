"""What the tests of the commands share: `fsl` called in this process, tiny runs, and folders before and after."""

import contextlib
import io
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image

from fewshot_runner.cli import session
from fewshot_runner.cli.compose import compose
from fewshot_runner.cli.main import run

WORLD = [
    "dataset=glyphs", "++dataset.source.alphabets=6", "++dataset.source.characters=8", "++dataset.source.drawers=8",
    "dataset.tests=null", "dataset.image_size=16", "model=conv4", "model.widths=[8,8]", "episode.n_way=3",
    "episode.n_query=4", "hardware=cpu", "hardware.threads=1", "trainer.max_steps=20", "trainer.val_every=10",
    "trainer.val_episodes=20",
    "trainer.checkpoint_every=5", "trainer.log_every=5", "eval.episodes=50",
]  # fmt: skip
SAMPLER = {
    "n_way": 4, "n_shot": 1, "n_query": 2, "episodes": 1, "n_classes": 8, "n_images": 3, "n_groups": 2, "n_pairs": 16,
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def run(self) -> Path:
        """The run folder, which stands in the last line."""
        last = self.out.splitlines()[-1]
        assert last.startswith("run: "), last
        return Path(last.removeprefix("run: "))


def call(*words: object) -> Answer:
    command, *arguments = map(str, words)
    out, err = io.StringIO(), io.StringIO()
    argv, threads = sys.argv, torch.get_num_threads()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(command, arguments)
    except SystemExit as ended:  # argparse and Hydra end the process themselves
        code = int(ended.code or 0)
    finally:
        sys.argv = argv
        torch.set_num_threads(threads)
    assert handlers == {number: signal.getsignal(number) for number in handlers}, "a command kept a signal for itself"
    return Answer(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def fsl() -> Callable[..., Answer]:
    """`fsl("train", "seed=1")` in this process, without the exit."""
    return call


@pytest.fixture(scope="session")
def tiny() -> Callable[[str], tuple[str, ...]]:
    """The overrides of a run of some method that takes a second."""

    @cache
    def overrides(method: str = "prototypical") -> tuple[str, ...]:
        sampler = compose([f"method={method}"])["method"]["sampler"]
        smaller = [f"method.sampler.{key}={value}" for key, value in SAMPLER.items() if key in sampler]
        return (f"method={method}", *WORLD, *smaller)

    return overrides


@pytest.fixture(scope="session")
def quick(tiny: Callable) -> Callable[..., list[str]]:
    """The overrides of a job that takes half a second."""
    return lambda method="prototypical": [*tiny(method), "trainer.max_steps=4", "trainer.val_every=2"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: Callable) -> Callable[[str], Path]:
    """A finished tiny run of a method; tests that write into it take a copy."""
    runs: dict[str, Path] = {}

    def run_of(method: str = "prototypical") -> Path:
        if method not in runs:
            answer = call("train", *tiny(method), f"output_dir={tmp_path_factory.mktemp('trained')}")
            assert answer.code == 0, answer.err
            runs[method] = answer.run
        return runs[method]

    return run_of


@pytest.fixture
def copied(tmp_path: Path, trained: Callable) -> Callable[[str], Path]:
    """A copy of such a run to do harm to."""

    def copy_of(method: str = "prototypical") -> Path:
        original = trained(method)
        return Path(shutil.copytree(original, tmp_path / "outputs" / original.parent.name / original.name))

    return copy_of


@pytest.fixture
def pictures(tmp_path: Path, tiny: Callable) -> Callable[[Sequence[int]], tuple[str, ...]]:
    """Draws the pictures of these numbers of each of 16 classes; gives the overrides of a tiny run on the folder."""
    own = [word for word in tiny() if word != "dataset=glyphs" and "dataset.source" not in word]

    def draw(numbers: Sequence[int]) -> tuple[str, ...]:
        for shade in range(16):
            folder = tmp_path / "pictures" / f"class{shade:02d}"
            folder.mkdir(parents=True, exist_ok=True)
            for number in numbers:
                Image.new("RGB", (16 + number, 20), (15 * shade, 200, 10 * number)).save(folder / f"{number}.png")
        return (*own, "dataset=folder", "dataset.split=random", f"dataset.path={tmp_path}/pictures")

    return draw


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, so that every stray file is seen."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def any_bytes_are_names(tmp_path: Path) -> None:
    """Skips where the file system takes names in UTF-8 alone, as macOS's does."""
    file = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        file.touch()
    except OSError as error:
        pytest.skip(f"needs a file name that is not UTF-8, which cannot be made here ({error.strerror})")
    file.unlink()


@pytest.fixture(scope="session")
def everything() -> Callable[[Path], dict[str, bytes | None]]:
    """Every file and folder below a folder, byte for byte; locks are empty and come and go."""

    def content(folder: Path) -> dict[str, bytes | None]:
        paths = [path for path in sorted(folder.rglob("*")) if path.name != ".lock"]
        return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}

    return content


@pytest.fixture
def refused(fsl: Callable, elsewhere: Path, everything: Callable) -> Iterator[Callable[..., str]]:
    """Calls a command that has to be refused: exit code 2, a few lines, no traceback, nothing left behind."""

    def call_refused(*words: object, code: int = 2, lines: int = 8) -> str:
        before = everything(elsewhere.parent)
        answer = fsl(*words)
        said = answer.err.strip()
        assert answer.code == code, answer
        assert "Traceback" not in said
        assert said, "refused without a word"
        assert len(said.splitlines()) <= lines, said
        assert answer.out == ""
        assert everything(elsewhere.parent) == before
        return said

    return call_refused


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every call of `session.start` and `session.resume`, with the run's seed."""
    calls = []
    start, resume = session.start, session.resume

    def watched_start(config, overrides, **options):
        calls.append(("start", config["seed"]))
        return start(config, overrides, **options)

    def watched_resume(run, **options):
        calls.append(("resume", run.read_config()["seed"]))
        return resume(run, **options)

    monkeypatch.setattr(session, "start", watched_start)
    monkeypatch.setattr(session, "resume", watched_resume)
    return calls
