"""A training session on the command line: what it prepares, says and leaves behind."""

import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from fewshot_runner import atomic
from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.compose import to_yaml
from fewshot_runner.cli.user_code import code_of
from fewshot_runner.engine.checkpoint import Checkpoints, DamagedCheckpoint
from fewshot_runner.engine.environment import changed_since, describe_environment
from fewshot_runner.engine.experiment import Experiment
from fewshot_runner.engine.fit import NotFinite
from fewshot_runner.engine.log import Narrator
from fewshot_runner.engine.pictures import MOST_IMAGES, episode_picture
from fewshot_runner.engine.protocols.base import Protocol
from fewshot_runner.engine.protocols.episodes import EpisodeProtocol
from fewshot_runner.engine.stopping import Stopped, StopRequest, Watch
from fewshot_runner.engine.train import train
from fewshot_runner.errors import UserError
from fewshot_runner.report.config import config_tree, shown
from fewshot_runner.report.console import output
from fewshot_runner.report.results import published_table, result_table
from fewshot_runner.runs import DONE, RUNNING, RunFolder, experiment_of
from fewshot_runner.settings import NO_HYPERPARAMETER, flatten, is_below


def start(
    config: dict[str, Any], overrides: list[str], *, watch: Watch | None = None, brief: bool = False
) -> RunFolder:
    """A new run. The run folder is claimed last, once nothing that the user gave can be refused any more.

    `watch`, of a search, may give it up after a validation. With `brief`, as in a sweep, its config is told to its log
    alone.
    """
    narrator = Narrator(brief=brief)
    with StopRequest() as stop:
        code = code_of(config["trusted_packages"])  # first of all: what is imported from now on
        builder = build(config, narrator, stop)
        experiment = builder.experiment(overrides)
        stop.check()
        run = RunFolder.claim(Path(config["output_dir"]), experiment_of(config["choices"]))
        with run.held(), _noting(run):
            environment = describe_environment(seed=builder.config.seed, device=builder.hardware.device, code=code)
            atomic.write_json(run.environment, environment | {"data": experiment.provenance.entries()})
            atomic.write_text(run.overrides, to_yaml(overrides))
            run.write_status(RUNNING, step=0, seconds=0.0)
            atomic.write_text(run.config, to_yaml(config))  # last: with it the folder is a run that can be resumed
            run_experiment(run, config, experiment, narrator, stop, watch)
    return run


def resume(run: RunFolder, *, watch: Watch | None = None, brief: bool = False) -> None:
    """Goes on from the last checkpoint of `run`; the options are those of `start`. Raises `Busy`."""
    narrator = Narrator(brief=brief)
    with run.held(), _noting(run), StopRequest() as stop:
        config = run.read_config()
        if run.read_status().get("state") == DONE:
            narrator.say(f"{run.path} is done already")
            report(run, knows_classes=_knows_classes(run))
            return
        run.remove_half_written()
        code = code_of(config["trusted_packages"])
        builder = build(config, narrator, stop)
        experiment = builder.experiment()
        now = describe_environment(seed=builder.config.seed, device=builder.hardware.device, code=code)
        with narrator.keeping(run.log):
            _note_changes(run, now, narrator)
        run_experiment(run, config, experiment, narrator, stop, watch)


def _note_changes(run: RunFolder, now: dict[str, Any], narrator: Narrator) -> None:
    """Says and writes down where a run goes on otherwise than it was under way before."""
    with suppress(UserError):  # damaged: it is a note, without which a run goes on
        began, *resumed = run.read_sessions()
        if changed := changed_since([began, *resumed][-1], now):
            narrator.say(f"results may differ from here on, if only in last bits: {'; '.join(changed)}")
            atomic.write_json(run.environment, {**began, "resumed": [*resumed, now]})


@contextmanager
def _noting(run: RunFolder) -> Iterator[None]:
    """Notes on what ends a session early how the run goes on, or where it lies; a sweep says that in its own words."""
    try:
        yield
    except (Stopped, KeyboardInterrupt) as error:
        if run.config.is_file():  # else it has not begun
            error.add_note(f"go on with: fsl resume {run.quoted}")
        raise
    except NotFinite as error:
        error.add_note(f"the run is in {run.path}")
        raise


def run_experiment(
    run: RunFolder,
    config: dict[str, Any],
    experiment: Experiment,
    narrator: Narrator,
    stop: StopRequest,
    watch: Watch | None,
) -> None:
    settings = config["choices"] | {
        key: value
        for key, value in flatten(config).items()
        if not is_below(key, NO_HYPERPARAMETER) and not key.endswith("_target_")
    }
    with narrator.keeping(run.log):
        narrator.say(config_tree(config), is_detail=True)
        narrator.say(experiment.describe())
        train(experiment, run, narrator, stop, settings=settings, watch=watch)
    report(run, knows_classes=bool(experiment.classes))


def show(config: dict[str, Any], overrides: list[str]) -> None:
    """What a run would be made of; trains nothing and leaves nothing behind but the cache of decoded images and, where
    validation is by episodes, a picture of one.
    """
    narrator = Narrator(output())
    with StopRequest() as stop:
        experiment = build(config, narrator, stop).experiment(overrides)
    narrator.say(config_tree(config))
    narrator.say(experiment.describe())
    narrator.say(_example(experiment.validation))


def _example(protocol: Protocol) -> str:
    """Where an episode is drawn, in a new file of the user's own; or, where there is none to be drawn or it has too
    many images, what is asked.
    """
    drawn = protocol.draw(0, 1) if isinstance(protocol, EpisodeProtocol) else None
    if drawn is None or drawn.n_images > MOST_IMAGES:
        told = (f"{name} {shown(value)}" for name, value in protocol.describe().items() if value is not None)
        return f"validation, of which no example is drawn: {', '.join(told)}"
    picture = episode_picture(drawn.map(protocol.viewer.pictures))
    with tempfile.NamedTemporaryFile(prefix="fsl-episode-", suffix=".png", delete=False) as file:
        Image.fromarray(picture).save(file)
    return f"an episode as validation draws it: {file.name}"


def report(run: RunFolder, *, knows_classes: bool) -> None:
    """The results on standard output; the last line says where they lie. `knows_classes`, it can name those of its
    training without examples.
    """
    console = output()
    console.print(result_table(run, width=console.width), soft_wrap=True)
    if (published := published_table(run, width=console.width)) is not None:
        console.print(published, soft_wrap=True)
    examples = "" if knows_classes else "--support DIR "
    beside = shlex.quote(str(run.path.parent))
    print(f"next: fsl predict {run.quoted} {examples}IMAGE...   fsl compare {beside}   fsl tb {run.quoted}")
    print(f"run: {run.path}")


def _knows_classes(run: RunFolder) -> bool:
    """Whether the weights that `fsl predict` takes answer with classes of their own."""
    try:
        return bool(Checkpoints(run.checkpoints).load_best()[0].get("classes"))
    except DamagedCheckpoint:
        return False


def build(config: dict[str, Any], narrator: Narrator, stop: StopRequest) -> Builder:
    """A builder whose images are decoded, which happens once a data set and resolution; shows how far that is."""
    with Progress(
        TextColumn("[bold]decode images"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        console=narrator.console,
        transient=True,
        disable=not narrator.console.is_terminal,
    ) as bar:
        task = bar.add_task("decode", visible=False)

        def say_progress(done: int, of: int) -> None:
            stop.check()
            bar.update(task, completed=done, total=of, visible=True)

        builder = Builder(config, say_progress=say_progress)
        _ = builder.dataset  # made when it is first asked for: now, while the bar shows
        return builder
