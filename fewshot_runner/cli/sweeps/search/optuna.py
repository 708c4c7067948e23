"""Search by a tree-structured Parzen estimator (Bergstra et al. 2011,
https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization), with Optuna.

The trials are kept in the sweep's folder as an Optuna journal, which its dashboard reads. Each proposal is drawn with a
seed of its own, so that a search which was interrupted goes on as it would have gone.

A job tells the journal its validation figures, and asks the pruner whether to go on, from the process that it runs in:
so all launchers prune, as long as the sweep's folder lies where the job sees it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot_runner.cli.sweeps.search.base import Proposal, Search
from fewshot_runner.cli.sweeps.search.space import Choice, Space, given, only_value, searched_keys, swept_keys
from fewshot_runner.cli.targets import make
from fewshot_runner.errors import UserError
from fewshot_runner.extras import imported
from fewshot_runner.runs import DONE, PRUNED

STUDY, AGAIN, JOB = "fsl", "again", "job"  # the study, and what is noted of its trials


class Optuna(Search):
    """`trials` in all, the first `startup_trials` of them at random; maximises the validation figure.

    `pruner` describes one of Optuna's, which ends jobs whose validation figures fall behind; None lets all of them end.
    """

    adaptive = True

    def __init__(self, *, trials: int, startup_trials: int, seed: int, pruner: Mapping[str, Any] | None) -> None:
        for key, value in (("trials", trials), ("startup_trials", startup_trials)):
            if value < 1:
                raise UserError(f"sweep.{key}={value}: give 1 or more")
        self.trials = trials
        self.startup_trials = startup_trials
        self.seed = seed
        self.optuna = imported("optuna", extra="optuna", asked_by="sweep=optuna")
        self.pruner = None
        if pruner is not None:
            base, remedy = self.optuna.pruners.BasePruner, "choose one of optuna.pruners, or null"
            self.pruner = make(pruner, "sweep.pruner", kind=base, trusted=("optuna.pruners",), remedy=remedy)

    def proposals(self, space: Space, folder: Path) -> Iterator[list[Proposal]]:
        self.asked = {key: self._distribution(space[key]) for key in searched_keys(space, "sweep=optuna")}
        optuna, self.folder = self.optuna, folder
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = self._study(folder.absolute() / "optuna.journal")
        for trial in self._former():
            if not are_alike(trial.distributions, self.asked):
                raise UserError(
                    f"sweep.folder={folder}: this folder holds a search over other settings, choices or scales "
                    f"({', '.join(trial.distributions)}); give sweep.folder another name"
                )
        # done, failed or interrupted: what has to be done, the sweep knows
        yield [self._proposal(trial, space) for trial in self._former()[: self.trials]]
        while (number := len(self._former())) < self.trials:
            self.study.sampler = optuna.samplers.TPESampler(
                seed=(self.seed * 1_000_003 + number) % 2**32, n_startup_trials=self.startup_trials
            )
            yield [self._proposal(self.study.ask(self.asked), space)]

    def _study(self, journal: Path) -> Any:
        optuna = self.optuna
        try:
            storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
            return optuna.create_study(
                study_name=STUDY,
                storage=storage,
                direction="maximize",
                pruner=self.pruner or optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
        except (AssertionError, ValueError, KeyError) as error:  # of a line that is cut off, or no journal at all
            raise UserError(
                f"{journal}: damaged ({error}); remove it to begin the search anew, in which finished runs count again"
            ) from error

    def settle(self, proposal: Proposal, fingerprint: str) -> None:
        trial = self._former()[proposal.number]
        known = trial.user_attrs.get(JOB)
        if known is None and not trial.state.is_finished():
            self.optuna.trial.Trial(self.study, trial._trial_id).set_user_attr(JOB, fingerprint)
        elif known not in (None, fingerprint):
            raise UserError(
                f"sweep.folder={self.folder}: this folder holds a search whose figures are of other settings than this "
                "command gives; give sweep.folder another name"
            )

    def tell(self, proposal: Proposal, state: str, value: float | None) -> None:
        """A trial that ended early before and has come to its end now is told as another of the same settings."""
        states = self.optuna.trial.TrialState
        complete = state == DONE and value is not None
        trial = self._former()[proposal.number]
        if trial.state == states.RUNNING and complete:
            self.study.tell(trial.number, value)
        elif trial.state == states.RUNNING:
            self.study.tell(trial.number, state=states.PRUNED if state == PRUNED else states.FAIL)
        elif trial.state != states.COMPLETE and complete and not self._told_again(trial):
            again = self.optuna.trial.create_trial(
                value=value, params=trial.params, distributions=trial.distributions, user_attrs={AGAIN: trial.number}
            )
            self.study.add_trial(again)

    def _told_again(self, trial: Any) -> bool:
        return any(other.user_attrs.get(AGAIN) == trial.number for other in self.study.get_trials(deepcopy=False))

    def _former(self) -> list[Any]:
        """The trials that were proposed, without those told again or half made."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if AGAIN not in trial.user_attrs and not self._is_half_made(trial)]

    def _is_half_made(self, trial: Any) -> bool:
        """Whether a kill came while its settings were drawn, one by one; the next of its number draws them all."""
        begun = trial.intermediate_values or trial.state != self.optuna.trial.TrialState.RUNNING
        return not begun and trial.params.keys() < self.asked.keys()

    def _proposal(self, trial: Any, space: Space) -> Proposal:
        number = [former.number for former in self._former()].index(trial.number)
        settings = {
            key: _shown(trial.params[key]) if key in swept_keys(space) else only_value(values)
            for key, values in space.items()
        }
        watch = None if self.pruner is None else Watcher(self.study, trial.number)
        return Proposal(number, given(settings), watch)

    def _distribution(self, values: Any) -> Any:
        distributions = self.optuna.distributions
        if isinstance(values, Choice):
            return distributions.CategoricalDistribution(values.values)
        if values.integer:
            return distributions.IntDistribution(int(values.low), int(values.high), log=values.log)
        return distributions.FloatDistribution(values.low, values.high, log=values.log)


def are_alike(known: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether these are distributions of one search; the ends of an interval may have been moved."""
    if known.keys() != asked.keys():
        return False
    pairs = [(known[key], asked[key]) for key in known]
    return all(
        type(a) is type(b) and all(getattr(a, name, None) == getattr(b, name, None) for name in ("choices", "log"))
        for a, b in pairs
    )


@dataclass(frozen=True)
class Watcher:
    """Asks the study's pruner about one trial, in whatever process it is called.

    A job that was interrupted validates some steps again: what was told before is not told twice, and a decision that
    was taken stands.
    """

    study: Any
    number: int

    def __call__(self, step: int, value: float) -> bool:
        from optuna.trial import Trial, TrialState

        known = self.study.get_trials(deepcopy=False)[self.number]
        if known.state.is_finished():
            return known.state == TrialState.PRUNED and step >= (known.last_step or 0)
        if known.last_step is not None and step < known.last_step:
            return False
        trial = Trial(self.study, known._trial_id)
        if step != known.last_step:
            trial.report(value, step)
        return trial.should_prune()


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
