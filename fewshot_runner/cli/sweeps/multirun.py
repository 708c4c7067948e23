"""fsl train -m: from the command line to a sweep.

A sweep has a folder of its own, named after its settings, so that the same command finds it again; in it lies the
manifest.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from fewshot_runner.cli.arguments import check_type
from fewshot_runner.cli.compose import hydra_config, hydra_errors, is_group, parsed, refuse_no_folder
from fewshot_runner.cli.sweeps.launchers.base import Launcher
from fewshot_runner.cli.sweeps.manifest import Manifest
from fewshot_runner.cli.sweeps.planning import Planner
from fewshot_runner.cli.sweeps.search.base import Search
from fewshot_runner.cli.sweeps.search.space import Space, space_of, swept_keys
from fewshot_runner.cli.sweeps.sweep import Sweep, config_option
from fewshot_runner.cli.targets import make
from fewshot_runner.errors import UserError
from fewshot_runner.settings import OF_SWEEPS, SAME_SWEEP, is_below

OF_THE_WHOLE = (*OF_SWEEPS, "output_dir")  # the same for all jobs, which are looked up in one place
SAME_SEARCH = ("folder", "trials", "params")


def run(overrides: Sequence[str], *, config_dir: Path | None, dry_run: bool) -> None:
    """Runs what is missing of a sweep and prints its table. Raises `SweepFailed` or `SweepStopped`."""
    refuse_hydras_own(overrides)
    with hydra_errors():
        read = parsed(overrides, config_dir=config_dir)
        refuse_sweeping_the_whole(read)
        config = config_of_all(read, config_dir=config_dir)
        described, placed = (OmegaConf.to_container(config[group], resolve=True) for group in OF_SWEEPS)
        folder, params = (described.pop(key, None) for key in ("folder", "params"))
        check_type("sweep.folder", folder, str | None)
        check_type("sweep.params", params, Mapping[str, Any] | None)
        refuse_no_folder(config.output_dir)
        output_dir = Path(config.output_dir)
        of_yaml = parsed([f"{key}={value}" for key, value in (params or {}).items()], config_dir=config_dir)
        refuse_sweeping_the_whole(of_yaml)
        of_jobs = [override for override in read if group_of(override.key_or_group) not in OF_SWEEPS]
        space = space_of([*of_yaml, *of_jobs])
    folder = Path(folder) if folder else output_dir / "sweeps" / sweep_name(space, described)
    planner = Planner(
        space,
        search=part(described, "sweep", Search),
        launcher=part(placed, "launcher", Launcher),
        manifest=Manifest(folder, [*config_option(config_dir), *overrides]),
        config_dir=config_dir,
    )
    sweep = Sweep(planner)
    if dry_run:
        sweep.show()
        return
    with held(folder):
        sweep.run()


def refuse_hydras_own(overrides: Sequence[str]) -> None:
    for override in overrides:
        for hydras, ours in (("hydra/launcher", "launcher"), ("hydra.launcher", "launcher"), ("hydra/sweeper", "sweep"),
                             ("hydra.sweeper", "sweep"), ("hydra.sweep", "sweep")):  # fmt: skip
            if override.startswith((f"{hydras}=", f"{hydras}.")):
                raise UserError(f"{override}: sweeps of fsl have groups of their own; see fsl list {ours}")


def refuse_sweeping_the_whole(read: Sequence[Override]) -> None:
    for override in read:
        if override.is_sweep_override() and group_of(override.key_or_group) in OF_THE_WHOLE:
            raise UserError(f"{override.input_line}: belongs to the sweep as a whole; give one value")


def config_of_all(read: Sequence[Override], *, config_dir: Path | None) -> DictConfig:
    """What the jobs have in common, as the sweep itself and where it leaves its results.

    A key may be there in some members of a swept group alone, and a member may not be there at all, which is its own
    job's affair: members take turns until all can be composed. Raises `UserError`.
    """
    values: list[list[str]] = []
    for override in read:
        if override.is_interval_sweep():
            values.append([f"{override.get_key_element()}={override.value().start}"])
        elif override.is_sweep_override():
            words = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
            if not words:
                raise UserError(f"{override.input_line}: matches no choice; fsl list shows what there is")
            values.append(words if is_group(override.key_or_group, config_dir) else words[:1])
        else:
            values.append([override.input_line])
    refused = None
    for turn in range(max(map(len, values), default=1)):
        words = [each[min(turn, len(each) - 1)] for each in values]
        try:
            return hydra_config(words, config_dir=config_dir)
        except UserError as error:
            refused = refused or error
    raise refused


def group_of(key: str) -> str:
    return key.split(".")[0].split("/")[0]


def sweep_name(space: Space, described: dict[str, Any]) -> str:
    """The swept keys for people, and a hash of all that makes it this sweep."""
    content = {
        "space": sorted(
            (key, repr(values)) for key, values in space.items() if not is_below(key.lstrip("+"), SAME_SWEEP)
        ),
        "search": {key: value for key, value in described.items() if key not in SAME_SEARCH},
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    return "-".join([*(key.lstrip("+").rpartition(".")[2] for key in swept_keys(space)), digest])[-60:].lstrip("-")


def part(described: dict[str, Any], group: str, kind: type) -> Any:
    """The search or launcher that `_target_` names; it has to be one of ours."""
    return make(described, group, kind=kind, trusted=("fewshot_runner",), remedy=f"see fsl list {group}")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps a second process from the same sweep; of one that was refused, the folders made here go again."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{folder}: another process is at work on this sweep; wait for it, or stop it") from error
    except OSError as error:
        raise UserError(
            f"{folder}: cannot make a sweep folder there ({error.strerror}); "
            "choose a folder you may write to, with output_dir=... or sweep.folder=..."
        ) from error
    try:
        yield
    finally:
        if {path.name for path in folder.iterdir()} <= {".lock"}:  # refused: as if nothing had been asked
            (folder / ".lock").unlink(missing_ok=True)
            for empty in made:
                with suppress(OSError):
                    empty.rmdir()
        lock.release()
