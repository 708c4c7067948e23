"""Jobs that a search gives up: when, what is said of them, and that they stay so."""

import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from sweeps import jobs_of

from fewshot_runner.cli.sweeps.job import falls_behind
from fewshot_runner.runs import SECTIONS, RunFolder

optuna = pytest.importorskip("optuna")

N_STARTUP, WARMUP, LAST = 2, 2, 4


@pytest.fixture(scope="module")
def search(tiny: Callable) -> Callable[..., list[str]]:
    """The command of a sweep of eight small jobs with scripted figures, several of which fall behind."""
    learner = ["method.learner._target_=scripted_method.Scripted", "trusted_packages=[scripted_method]"]
    learner += ["~method.learner.distance", "~method.learner.scale", "+method.learner.curve=interval(0,1)"]

    def command(output_dir: Path, *more: str) -> list[str]:
        return [
            "train", "-m", *tiny(), f"trainer.max_steps={LAST}", "trainer.val_every=1", f"output_dir={output_dir}",
            "sweep=optuna", "sweep.trials=8", "sweep.startup_trials=4", f"sweep.pruner.n_startup_trials={N_STARTUP}",
            f"sweep.pruner.n_warmup_steps={WARMUP}", *learner, *more,
        ]  # fmt: skip

    return command


@pytest.fixture(scope="module")
def whole(fsl: Callable, search: Callable, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The jobs of such a sweep that was left in peace."""
    folder = tmp_path_factory.mktemp("whole")
    answer = fsl(*search(folder))
    assert answer.code == 0, answer.err
    jobs = jobs_of(folder)
    assert {job["state"] for job in jobs} == {"done", "pruned"}
    return jobs


def told(jobs: list[dict]) -> list[dict]:
    """The jobs without what differs between two sweeps of the same settings."""
    plain = [{key: value for key, value in job.items() if key not in ("run", "seconds")} for job in jobs]
    for job in plain:
        job["overrides"] = [word for word in job["overrides"] if not word.startswith("output_dir=")]
    return plain


def curve_of(run: RunFolder) -> dict[int, float]:
    """The validation accuracy of each step."""
    return {line["step"]: line["val"]["accuracy"] for line in run.read_metrics() if "val" in line}


def median_rule(curve: dict[int, float], step: int, finished: list[dict[int, float]]) -> bool:
    """Whether the best figure up to `step` is below the median of the finished jobs' figures at `step`."""
    best = max(value for at, value in curve.items() if at <= step)
    enough = len(finished) >= N_STARTUP and step >= WARMUP
    return enough and best < statistics.median(other[step] for other in finished)


def test_jobs_are_ended_where_the_median_rule_and_optuna_itself_say(whole):
    pruner = optuna.pruners.MedianPruner(n_startup_trials=N_STARTUP, n_warmup_steps=WARMUP)
    study = optuna.create_study(direction="maximize", pruner=pruner)  # in memory, and of nothing but the curves
    finished = []
    for job in whole:
        curve = curve_of(job["run"])
        trial = study.ask()
        for step, value in curve.items():
            trial.report(value, step)
            expected = step < LAST and median_rule(curve, step, finished)
            assert expected == (step < LAST and trial.should_prune())
            assert expected == (job["state"] == "pruned" and step == max(curve)), job
        if job["state"] == "done":
            finished.append(curve)
            study.tell(trial, max(curve.values()))
        else:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    [journal] = whole[0]["run"].path.parents[1].glob("sweeps/*/optuna.journal")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    kept = optuna.load_study(study_name="fsl", storage=storage)
    for job, trial in zip(whole, kept.trials, strict=True):
        assert trial.state.name == {"done": "COMPLETE", "pruned": "PRUNED"}[job["state"]]
        assert trial.intermediate_values == curve_of(job["run"])


def test_a_loss_is_told_with_its_sign_turned(tmp_path):
    """The figures of a run that is there already; those of a run that lasts go through the same function."""
    run = RunFolder(tmp_path)
    run.config.write_text(json.dumps({**{name: {} for name in SECTIONS}, "trainer": {"monitor": "loss"}}))
    lines = [{"step": 1, "train": {"loss": 9.0}}, {"step": 1, "val": {"loss": 2.5}}, {"step": 2, "val": {"loss": 0.5}}]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = []
    assert not falls_behind(run, lambda *told: asked.append(told))
    assert asked == [(1, -2.5), (2, -0.5)]
    assert falls_behind(run, lambda step, value: step == 1)
    assert not falls_behind(RunFolder(tmp_path / "damaged"), lambda step, value: True)


def test_an_ended_job_is_told_as_such_everywhere(fsl, whole):
    job = next(job for job in whole if job["state"] == "pruned")
    curve = curve_of(job["run"])
    step, best = max(curve), max(curve.values())
    assert WARMUP <= step < LAST
    status = job["run"].read_status()
    assert (status["state"], status["step"]) == ("pruned", step)
    assert status["reason"] == job["reason"]
    assert f"at step {step}; best accuracy {best:.4f}" in job["reason"]
    assert job["validation"] == job["run"].read_summary()["best_validation"] == best
    assert "result" not in job
    answer = fsl("compare", job["run"].path.parents[1])
    [line] = [line for line in answer.out.splitlines() if job["run"].path.name in line]
    assert {"pruned", str(step)} <= set(line.split())


def test_the_same_command_runs_nothing_again(fsl, search, whole, monkeypatch):
    from fewshot_runner.cli import session

    monkeypatch.setattr(session, "start", None)
    monkeypatch.setattr(session, "resume", None)
    folder = whole[0]["run"].path.parents[1]
    answer = fsl(*search(folder))
    assert answer.code == 0, answer.err
    n_pruned = sum(job["state"] == "pruned" for job in whole)
    assert answer.err.count("pruned already") == answer.out.count("pruned: behind") == n_pruned
    assert told(jobs_of(folder)) == told(whole)


@pytest.mark.parametrize("moment", ["asked", "told"])
def test_a_search_that_was_stopped_goes_on_as_if_it_never_had_been(fsl, search, whole, tmp_path, monkeypatch, moment):
    """Stopped after the deciding figure was told and before the run knew, or before the search was told of the end."""
    from fewshot_runner.cli.sweeps.search.optuna import Optuna, Watcher

    target, method = {"asked": (Watcher, "__call__"), "told": (Optuna, "tell")}[moment]
    call = getattr(target, method)

    def stopped(*arguments):
        if moment == "told" and arguments[2] != "pruned":
            return call(*arguments)
        if moment == "asked" and not call(*arguments):
            return False
        monkeypatch.setattr(target, method, call)
        raise KeyboardInterrupt

    monkeypatch.setattr(target, method, stopped)
    assert fsl(*search(tmp_path)).code == 130
    assert getattr(target, method) is call, "it was never stopped"
    assert len(jobs_of(tmp_path)) < 8
    assert fsl(*search(tmp_path)).code == 0
    assert told(jobs_of(tmp_path)) == told(whole)


def test_former_trials_are_told_of_although_the_search_is_stopped_before_their_turn(
    fsl, search, whole, tmp_path, monkeypatch
):
    from fewshot_runner.cli import session

    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    folder = shutil.copytree(whole[0]["run"].path.parents[1], tmp_path / "copy")
    shutil.rmtree(jobs_of(folder)[0]["run"].path)
    monkeypatch.setattr(session, "start", stopped)
    answer = fsl(*search(folder))
    assert answer.code == 130, answer.err
    jobs = jobs_of(folder)
    assert jobs[0]["state"] == "stopped"
    assert told(jobs)[1:] == told(whole)[1:]


def test_a_worker_process_ends_the_same_jobs(fsl, search, whole, tmp_path):
    answer = fsl(*search(tmp_path, "launcher=parallel", "launcher.workers=1"))
    assert answer.code == 0, answer.err
    assert told(jobs_of(tmp_path)) == told(whole)


def test_an_ended_run_goes_on_where_nothing_ends_it(fsl, search, whole, tmp_path):
    """Without a pruner the same jobs come to their end, from where they were and with the bits they would have had."""
    number = next(job["number"] for job in whole if job["state"] == "pruned")
    assert fsl(*search(tmp_path, f"sweep.trials={number + 1}")).code == 0
    ended = jobs_of(tmp_path)[number]
    assert ended["state"] == "pruned"
    assert fsl("resume", ended["run"].path).code == 0
    assert ended["run"].read_status()["state"] == "done"
    alone = fsl("train", *ended["overrides"], f"output_dir={tmp_path / 'alone'}")
    assert alone.code == 0, alone.err
    assert ended["run"].read_summary()["results"] == RunFolder(alone.run).read_summary()["results"]
    assert curve_of(ended["run"]) == curve_of(RunFolder(alone.run))
    assert fsl(*search(tmp_path, f"sweep.trials={number + 1}")).code == 0
    assert [job["state"] for job in jobs_of(tmp_path)] == [job["state"] for job in whole[:number]] + ["done"]


def test_another_search_judges_a_run_for_itself(fsl, search, whole, tmp_path):
    number = next(job["number"] for job in whole if job["state"] == "pruned")
    assert fsl(*search(tmp_path, f"sweep.trials={number + 1}")).code == 0
    assert fsl(*search(tmp_path, f"sweep.trials={number + 1}", "sweep.pruner.n_startup_trials=99")).code == 0
    manifests = [json.loads(path.read_text())["jobs"] for path in tmp_path.glob("sweeps/*/manifest.json")]
    assert sorted(jobs[number]["state"] for jobs in manifests) == ["done", "pruned"]
    assert len(list(tmp_path.glob("*/*/config.yaml"))) == number + 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep.pruner.n_startup_trials=-1"], "sweep.pruner: Number of startup trials cannot be negative"),
        (["sweep.pruner.n_warmup_steps=few"], "sweep.pruner.n_warmup_steps=few: give a whole number"),
        (["++sweep.pruner.n_startup=1"], "did you mean n_startup_trials?"),
        (["sweep.pruner._target_=os.system"], "only classes of optuna.pruners"),
        (["--dry-run"], "leave --dry-run out"),
    ],
)
def test_a_wrong_pruner_is_refused(refused, words, said):
    assert said in refused("train", "-m", "sweep=optuna", "seed=0,1", *words)
