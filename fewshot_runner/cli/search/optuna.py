"""Search by a tree-structured Parzen estimator (Bergstra et al. 2011,
https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization), with Optuna.

The trials are kept in the sweep's folder as an Optuna journal, which its dashboard reads. Each proposal is drawn with a
seed of its own, so that a search which was interrupted goes on as it would have gone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fewshot_runner.cli.extras import imported
from fewshot_runner.cli.search.base import Proposal, Search
from fewshot_runner.cli.search.space import Choice, Space, given
from fewshot_runner.errors import UserError

STUDY, AGAIN = "fsl", "again"


class Optuna(Search):
    """`trials` in all, the first `startup_trials` of them at random; maximises the validation figure."""

    adaptive = True

    def __init__(self, *, trials: int, startup_trials: int, seed: int) -> None:
        for key, value in (("trials", trials), ("startup_trials", startup_trials)):
            if value < 1:
                raise UserError(f"sweep.{key}={value}: give 1 or more")
        self.trials = trials
        self.startup_trials = startup_trials
        self.seed = seed
        self.optuna = imported("optuna", extra="optuna", asked_by="sweep=optuna")

    def proposals(self, space: Space, folder: Path) -> Iterator[Proposal]:
        distributions = {key: self._distribution(values) for key, values in space.items() if is_open(values)}
        if not distributions:
            raise UserError("sweep=optuna: nothing is left open; give values or an interval, as seed=0,1,2")
        optuna = self.optuna
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        backend = optuna.storages.journal.JournalFileBackend(str(folder / "optuna.journal"))
        storage = optuna.storages.JournalStorage(backend)
        self.study = optuna.create_study(study_name=STUDY, storage=storage, direction="maximize", load_if_exists=True)
        for trial in self._former()[: self.trials]:  # done, failed or interrupted: what has to be done, the sweep knows
            yield self._proposal(trial, space)
        while (number := len(self._former())) < self.trials:
            self.study.sampler = optuna.samplers.TPESampler(
                seed=(self.seed * 1_000_003 + number) % 2**32, n_startup_trials=self.startup_trials
            )
            yield self._proposal(self.study.ask(distributions), space)

    def tell(self, proposal: Proposal, value: float | None) -> None:
        """A trial that failed before and has come to a figure now is told as another of the same settings."""
        states = self.optuna.trial.TrialState
        trial = self._former()[proposal.number]
        if trial.state == states.RUNNING:
            self.study.tell(trial.number, value, state=states.FAIL if value is None else states.COMPLETE)
        elif trial.state == states.FAIL and value is not None and not self._told_again(trial):
            again = self.optuna.trial.create_trial(
                value=value, params=trial.params, distributions=trial.distributions, user_attrs={AGAIN: trial.number}
            )
            self.study.add_trial(again)

    def _told_again(self, trial: Any) -> bool:
        return any(other.user_attrs.get(AGAIN) == trial.number for other in self.study.get_trials(deepcopy=False))

    def _former(self) -> list[Any]:
        """The trials that were proposed, without those told again."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if AGAIN not in trial.user_attrs]

    def _proposal(self, trial: Any, space: Space) -> Proposal:
        number = [former.number for former in self._former()].index(trial.number)
        settings = {
            key: _shown(trial.params[key]) if is_open(values) else (values.values or (None,))[0]
            for key, values in space.items()
        }
        return Proposal(number, given(settings))

    def _distribution(self, values: Any) -> Any:
        distributions = self.optuna.distributions
        if isinstance(values, Choice):
            return distributions.CategoricalDistribution(values.values)
        if values.integer:
            return distributions.IntDistribution(int(values.low), int(values.high), log=values.log)
        return distributions.FloatDistribution(values.low, values.high, log=values.log)


def is_open(values: Any) -> bool:
    """Whether there is anything to choose."""
    return not isinstance(values, Choice) or len(values.values) > 1


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
