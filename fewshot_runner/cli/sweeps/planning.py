"""What a sweep has to do: its jobs, what there is of each already, and what is wrong with them before they run."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fewshot_runner.cli.compose import Composer
from fewshot_runner.cli.sweeps.job import Job, Outcome, find_run, fingerprint
from fewshot_runner.cli.sweeps.launchers.base import Launcher
from fewshot_runner.cli.sweeps.manifest import Entry, Manifest, entry_of
from fewshot_runner.cli.sweeps.search.base import Proposal, Search
from fewshot_runner.cli.sweeps.search.space import Space
from fewshot_runner.data.provenance import Provenance
from fewshot_runner.errors import UserError
from fewshot_runner.runs import DONE, FAILED, PRUNED, RunFolder
from fewshot_runner.settings import flatten, is_below

OF_USERS = "dataset.source.path"  # the key of data sets of files that a user puts somewhere, and so may mend
OF_VALIDATION = ("episode", "eval", "trainer.monitor", "trainer.val_episodes", "dataset.split", "dataset.path")

Planned = tuple[Proposal, Entry, Job | None]  # no job where its settings are refused


class Planner:
    """Turns the proposals of a search into jobs with an entry in the manifest, which says at once what is known."""

    def __init__(
        self, space: Space, *, search: Search, launcher: Launcher, manifest: Manifest, config_dir: Path | None
    ) -> None:
        self.space = space
        self.search = search
        self.launcher = launcher
        self.manifest = manifest
        self.config_dir = config_dir
        self.compose = Composer(config_dir)
        self.done: dict[str, RunFolder] = {}  # by fingerprint
        self.data: dict[str, Provenance | None] = {}  # what users' data are now, by the data set's config
        self.validated: dict[str, dict[str, Any]] = {}  # by fingerprint: what the validation of each job is of

    def planned(self, *, to_run: bool) -> Iterator[Planned]:
        """Every proposal in turn; `to_run`, what is missing is going to be run.

        The manifest gets those that wait for no results together: who is interrupted before leaves what it said.
        Raises `UserError` where all of them are refused.
        """
        for proposals in self.search.proposals(self.space, self.manifest.folder):
            planned = [self._plan(proposal, to_run) for proposal in proposals]
            refused = [entry["reason"] for _, entry, job in planned if job is None]
            if not self.search.adaptive and len(refused) == len(planned):  # a typo that all jobs have
                raise UserError(refused[0])
            self.manifest.jobs += [entry for _, entry, _ in planned]
            yield from planned

    def found(self, job: Job) -> tuple[RunFolder | None, str | None]:
        """What there is of a job, as `find_run` finds it; a run that is done stays so, and is looked for once."""
        if job.fingerprint not in self.done:
            found, state = find_run(job)
            if found is None or state != DONE:
                return found, state
            self.done[job.fingerprint] = found
        return self.done[job.fingerprint], DONE

    def _plan(self, proposal: Proposal, to_run: bool) -> Planned:
        try:
            job = self._job(proposal)
            found, state = self.found(job)
            if to_run and state != DONE:
                self.launcher.prepare()
            if found is None and not self.launcher.elsewhere:
                check(job.config)
        except UserError as error:
            entry = entry_of(proposal.number, proposal.overrides, None)
            self.manifest.note(entry, Outcome(FAILED, reason=str(error)))
            return proposal, entry, None
        if to_run:
            self.search.settle(proposal, job.fingerprint)
        entry = entry_of(proposal.number, proposal.overrides, job.fingerprint)
        if state == DONE or (state == PRUNED and job.watch is not None):
            self.manifest.note(entry, outcome_of(found, state))
        return proposal, entry, job

    def _job(self, proposal: Proposal) -> Job:
        config = self.compose(proposal.overrides)
        settings = flatten(config)
        validated = {"dataset": config["choices"]["dataset"]}
        validated |= {
            key: value
            for key, value in settings.items()
            if is_below(key, OF_VALIDATION) and key != "eval.episodes"  # validation has trainer.val_episodes
        }
        if self.search.adaptive:
            self._check_comparable(validated)
        job = Job(proposal.number, proposal.overrides, config, fingerprint(config), proposal.watch)
        self.validated[job.fingerprint] = validated
        if OF_USERS in settings and self.found(job)[0] is not None:
            job = replace(job, data=self._data(config))
            self.done.pop(job.fingerprint, None)
        return job

    def _data(self, config: Mapping[str, Any]) -> Provenance | None:
        """A user's data as they are now; None where they are not there, and are taken to be as they were."""
        from fewshot_runner.cli.build import Builder  # late: what is done already is told without torch

        described = json.dumps(config["dataset"], sort_keys=True, default=str)
        if described not in self.data:
            self.data[described] = None
            with suppress(UserError):
                self.data[described] = Builder(config).dataset.provenance
        return self.data[described]

    def _check_comparable(self, validated: Mapping[str, Any]) -> None:
        """Raises `UserError` where a search that learns from validation figures would be told of two kinds of them."""
        first = next(iter(self.validated.values()), validated)
        for key, value in validated.items():
            if value != first.get(key):
                raise UserError(
                    f"{key}={value}: this search compares validation figures, and began with {first.get(key)}; "
                    f"give one {key}, or set sweep=grid or sweep=random"
                )


def outcome_of(run: RunFolder, state: str) -> Outcome:
    """How a run that is done or was given up has ended."""
    return Outcome(state, run.path, None if state == DONE else run.read_status().get("reason"))


def check(config: Mapping[str, Any]) -> None:
    """Raises `UserError` for whatever can be told to be wrong before data are read."""
    from fewshot_runner.cli.build import Builder  # late: what is done already is told without torch

    Builder(config)
