"""fsl train -m: the manifest, what is done again and what is not, failures, and signals."""

import shutil
from pathlib import Path

import pytest
import torch
from sweeps import manifest_of, runs_below

from fewshot_runner.cli import session
from fewshot_runner.cli.compose import compose, hydra_config
from fewshot_runner.cli.sweeps import multirun
from fewshot_runner.cli.sweeps.job import fingerprint
from fewshot_runner.cli.sweeps.sweep import best_of
from fewshot_runner.engine.checkpoint import load
from fewshot_runner.runs import RunFolder


def contents(run: RunFolder) -> tuple[dict, list, list]:
    """All of a run that must not depend on what ran before it in the process."""
    state = {path.name: load(path) for path in sorted(run.checkpoints.glob("*.pt"))}
    tensors = {
        f"{name} {key}": value.numpy().tobytes()
        for name, each in state.items()
        for key, value in each["method"].items()
    }
    metrics = [{key: value for key, value in line.items() if key != "wall"} for line in run.read_metrics()]
    return tensors, metrics, run.read_summary()["results"]


def test_the_manifest_and_the_table_tell_of_every_job(fsl, quick, tmp_path):
    answer = fsl("train", "-m", *quick(), "seed=0,1,2", f"output_dir={tmp_path}")
    assert answer.code == 0, answer.err
    manifest = manifest_of(tmp_path)
    assert [job["state"] for job in manifest["jobs"]] == ["done"] * 3
    folder = Path(answer.out.splitlines()[-1].removeprefix("sweep: "))
    for seed, job in enumerate(manifest["jobs"]):
        run = RunFolder((folder / job["run"]).resolve())
        assert f"seed={seed}" in job["overrides"]
        assert run.read_config()["seed"] == seed
        assert run.read_status()["state"] == "done"
        [result] = run.read_summary()["results"]
        assert job["result"]["accuracy"] == result["accuracy"]
        assert job["validation"] == run.read_summary()["best_validation"]
    assert "50 episodes of seed 0, episodes, inductive, " in " ".join(answer.out.split())
    assert len(runs_below(tmp_path)) == 3
    shown = [float(line.split(" ± ")[0].split()[-1]) for line in answer.out.splitlines() if " ± " in line]
    assert shown == sorted((round(100 * job["result"]["accuracy"], 2) for job in manifest["jobs"]), reverse=True)
    best = max(manifest["jobs"], key=lambda job: job["validation"])
    [command] = [line for line in answer.out.splitlines() if line.startswith("best on validation: fsl train ")]
    assert f"seed={best['number']}" in command.split()
    assert {path.name for path in folder.iterdir()} <= {"manifest.json", ".lock"}


def test_the_same_command_again_does_nothing(fsl, quick, tmp_path, started):
    command = ["train", "-m", *quick(), "seed=0,1", f"output_dir={tmp_path}"]
    first = fsl(*command)
    before = manifest_of(tmp_path)
    assert started == [("start", 0), ("start", 1)]
    other_order = fsl(*command[:2], "seed=0,1", *command[2:-2], command[-1])
    again = fsl(*command)
    assert again.code == other_order.code == 0
    assert len(started) == 2
    assert again.out == first.out
    assert manifest_of(tmp_path) == before


def test_a_run_of_the_same_settings_counts_whoever_started_it(fsl, quick, tmp_path, started):
    assert fsl("train", *quick(), "seed=1", "name=alone", f"output_dir={tmp_path}").code == 0
    assert fsl("train", "-m", *quick(), "seed=0,1", f"output_dir={tmp_path}").code == 0
    assert fsl("train", "-m", *quick(), "seed=0,1,2", f"output_dir={tmp_path}").code == 0
    assert started == [("start", 1), ("start", 0), ("start", 2)]
    assert len(runs_below(tmp_path)) == 3
    assert len(list(tmp_path.glob("sweeps/*/manifest.json"))) == 2


def test_interrupted_and_failed_jobs_are_resumed_and_missing_ones_run(fsl, quick, tmp_path, started):
    command = ["train", "-m", *quick(), "seed=0,1,2,3", f"output_dir={tmp_path}"]
    assert fsl(*command).code == 0
    whole = {run.read_config()["seed"]: contents(run) for run in runs_below(tmp_path)}
    by_seed = {run.read_config()["seed"]: run for run in runs_below(tmp_path)}
    shutil.rmtree(by_seed[0].path)
    for seed, state in ((1, "running"), (2, "failed")):
        by_seed[seed].write_status(state, step=2, seconds=1.0)
        by_seed[seed].summary.unlink()
    started.clear()
    answer = fsl(*command)
    assert answer.code == 0, answer.err
    assert started == [("start", 0), ("resume", 1), ("resume", 2)]
    assert {run.read_config()["seed"]: contents(run) for run in runs_below(tmp_path)} == whole
    assert {job["state"] for job in manifest_of(tmp_path)["jobs"]} == {"done"}


def test_a_job_gives_the_bits_that_it_gives_alone(fsl, quick, tmp_path):
    """The jobs before it have other methods, threads and random draws."""
    together = tmp_path / "together"
    words = [
        word for word in quick("siamese") if not word.startswith(("method=", "method.sampler", "hardware.threads"))
    ]
    varied = ["method=pixels,siamese,prototypical", "hardware.threads=1,2", "trainer.max_steps=4"]
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.get_num_threads()
    answer = fsl("train", "-m", *words, *varied, f"output_dir={together}")
    assert answer.code == 0, answer.err
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    # threads are no part of a job: three runs, with the threads that came first
    runs = {run.read_config()["choices"]["method"]: run for run in runs_below(together)}
    assert len(runs_below(together)) == len(runs) == 3
    for method in ("siamese", "prototypical"):
        alone = fsl("train", *words, f"method={method}", "hardware.threads=1", f"output_dir={tmp_path / method}")
        assert alone.code == 0, alone.err
        assert contents(runs[method]) == contents(RunFolder(alone.run))


def test_the_fingerprint_is_of_what_changes_results(tiny, trained):
    config = compose(tiny())
    others = [
        "output_dir=elsewhere",
        "name=x",
        "hardware.threads=2",
        "hardware.deterministic=false",
        "dataset.cache=/nowhere",
        "trainer.log_every=3",
        "trainer.checkpoint_every=7",
    ]
    same = compose([*tiny(), *others])
    assert fingerprint(config) == fingerprint(same)
    assert fingerprint(RunFolder(trained()).read_config()) == fingerprint(config)
    for changed in (
        "seed=1",
        "++dataset.source.alphabets=7",
        "eval.seed=1",
        "method.optimizer.lr=0.1",
        "model.widths=[8]",
    ):
        assert fingerprint(compose([*tiny(), changed])) != fingerprint(config), changed


def test_defects_and_refused_settings_fail_their_job_alone(fsl, quick, tmp_path, monkeypatch):
    start = session.start

    def broken(config, overrides, **options):
        if config["seed"] == 1:
            raise RuntimeError("out of luck")
        return start(config, overrides, **options)

    monkeypatch.setattr(session, "start", broken)
    command = ["train", "-m", *quick(), "seed=0,1", f"output_dir={tmp_path}"]
    answer = fsl(*command)
    assert answer.code == 3
    assert "RuntimeError: out of luck" in answer.out
    assert "\njob 2\nTraceback" in answer.err  # a defect of ours shows where
    assert "[2/2] failed  seed=1" in answer.err
    [row] = [line.split() for line in answer.out.splitlines() if "out of luck" in line]
    assert row[:2] == ["2", "1"]  # the seed
    assert [job["state"] for job in manifest_of(tmp_path)["jobs"]] == ["done", "failed"]
    monkeypatch.setattr(session, "start", start)
    assert fsl(*command).code == 0

    answer = fsl("train", "-m", *quick(), "seed=2,abc,true", f"output_dir={tmp_path}")
    assert answer.code == 3
    assert "seed=abc: give a whole number" in answer.out
    assert "seed=true: give a whole number" in answer.out
    assert "failed: seed=abc: give a whole number" in answer.err.splitlines()  # the key once
    assert "[1/3] done" in answer.err

    answer = fsl("train", "-m", *quick(), "episode.n_way=3,77,2", f"output_dir={tmp_path / 'ways'}")
    assert answer.code == 3
    assert "Traceback" not in answer.err
    [failed] = [line for line in answer.err.splitlines() if "failed:" in line]
    assert "episode.n_way=77: " in failed
    assert "only 8 classes" in failed  # which the data alone can tell
    assert sorted(run.read_config()["episode"]["n_way"] for run in runs_below(tmp_path / "ways")) == [2, 3]


def test_figures_of_other_episodes_have_no_best_among_them(fsl, quick, tmp_path):
    for k, swept in enumerate(["eval.seed=0,1", "trainer.val_episodes=10,20"]):  # the latter's tests are the same
        answer = fsl("train", "-m", *quick(), swept, f"output_dir={tmp_path / str(k)}")
        assert answer.code == 0, answer.err
        assert "best on validation" not in answer.out
        assert [job["number"] for job in manifest_of(tmp_path / str(k))["jobs"]] == [0, 1]
    answer = fsl("train", "-m", *quick(), "seed=0,1", f"output_dir={tmp_path}")
    assert "best on validation" in answer.out


def test_a_failed_job_is_not_tried_again_for_its_doubles(fsl, quick, tmp_path, started):
    words = ["method.optimizer.lr=1e30,2e30", "method.schedule.warmup=0", "sweep=random", "sweep.trials=4"]
    answer = fsl("train", "-m", *quick(), *words, f"output_dir={tmp_path}")
    assert answer.code == 3, answer
    jobs = manifest_of(tmp_path)["jobs"]
    assert {job["state"] for job in jobs} == {"failed"}
    assert len(started) == len({job["fingerprint"] for job in jobs}) < len(jobs)


@pytest.mark.parametrize(
    ("slip", "told"),
    [
        ("method.learner.scales=1", "method.learner.scales"),
        ("trainer.max_steps=abc", "trainer.max_steps=abc: give a whole number"),
        ("+model.nothing=1,2", "model.nothing=1: there is no such key"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_slip_in_every_job_is_refused_once_and_leaves_nothing(refused, quick, slip, told, more):
    assert told in refused("train", "-m", *quick(), slip, "seed=0,1,2", *more)


def test_a_refused_sweep_leaves_the_users_empty_folders(refused, quick, elsewhere):
    (elsewhere / "mine" / "sweeps").mkdir(parents=True)
    for place in ("output_dir=mine", "output_dir=new/below", "sweep.folder=mine/sweeps", "sweep.folder=a/b/c/d"):
        assert "seed=a: give a whole number" in refused("train", "-m", *quick(), "seed=a,b", place)


@pytest.mark.parametrize("damage", ["cut off", "gone"])
def test_a_finished_run_without_readable_results_is_done_again(fsl, quick, tmp_path, damage):
    command = ["train", "-m", *quick(), "seed=0,1", f"output_dir={tmp_path}"]
    assert fsl(*command).code == 0
    results = [job["result"] for job in manifest_of(tmp_path)["jobs"]]
    first = runs_below(tmp_path)[0]
    if damage == "gone":
        first.summary.unlink()
    else:
        first.summary.write_text("{")
    answer = fsl(*command)
    assert answer.code == 0
    assert answer.err.count("] done already") == 1
    assert [job["result"] for job in manifest_of(tmp_path)["jobs"]] == results


def test_a_slip_in_a_long_sweep_is_told_at_once(refused, monkeypatch):
    """What all jobs have in common is composed once a member of a swept group, not once a value."""
    calls = []
    monkeypatch.setattr(multirun, "hydra_config", lambda *a, **o: (calls.append(a), hydra_config(*a, **o))[1])
    refused("train", "-m", "methd.x=1", "seed=range(100)", "method=prototypical,pixels")
    assert len(calls) == 2


def test_the_ready_command_names_the_users_own_configs(fsl, quick, tmp_path):
    (tmp_path / "mine/method").mkdir(parents=True)
    (tmp_path / "mine/method/own.yaml").write_text("# @package _global_\ndefaults: [prototypical]\n")
    own = f"--config-dir={tmp_path / 'mine'}"
    words = [word for word in quick() if not word.startswith("method=")]
    answer = fsl("train", "-m", own, *words, "method=own", "seed=0,1", f"output_dir={tmp_path}")
    assert answer.code == 0, answer.err
    [ready] = [line for line in answer.out.splitlines() if line.startswith("best on validation")]
    assert f"fsl train {own} " in ready
    assert manifest_of(tmp_path)["command"][0] == own


def test_a_glob_sees_the_users_own_configs(fsl, quick, tmp_path):
    (tmp_path / "mine/method").mkdir(parents=True)
    for name in ("own", "owned"):
        (tmp_path / f"mine/method/{name}.yaml").write_text("# @package _global_\ndefaults: [prototypical]\n")
    words = [word for word in quick() if not word.startswith("method=")]
    for pattern, expected in (("own*", {"own", "owned"}), ("proto*", {"prototypical", "prototypical_episodic"})):
        answer = fsl("train", "-m", f"--config-dir={tmp_path / 'mine'}", *words, f"method=glob({pattern})", "--dry-run")
        assert answer.code == 0, answer.err
        assert {line.split()[1] for line in answer.out.splitlines()[3:] if line.strip()} == expected


def test_a_key_may_be_there_in_the_members_of_the_swept_group_alone(fsl, tmp_path):
    """The default method has no inner steps; pixels, which comes first, has none either."""
    words = ["method=maml,reptile", "method.learner.inner_steps=2", f"output_dir={tmp_path}"]
    answer = fsl("train", "-m", *words, "--dry-run")
    assert answer.code == 0, answer.err
    assert answer.out.count("pending") == 2
    words[0] = "method=pixels,maml"
    answer = fsl("train", "-m", *words, "--dry-run")
    assert answer.code == 0, answer.err
    assert (answer.out.count("pending"), answer.out.count("failed: method.learner.inner_steps")) == (1, 1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["seed=interval(0,1)"], "sweep=random"),
        (["hydra/launcher=joblib", "seed=0,1"], "fsl list launcher"),
        (["launcher=serial,parallel", "seed=0,1"], "launcher=serial,parallel: belongs to the sweep as a whole"),
        (["sweep=random", "sweep.trials=1,2", "seed=0,1"], "sweep.trials=1,2: belongs to the sweep as a whole"),
        (["output_dir=a,b", "seed=0,1"], "output_dir=a,b: belongs to the sweep as a whole; give one value"),
        (["++sweep.params={output_dir:'a,b'}"], "output_dir=a,b: belongs to the sweep as a whole"),
        (["method=glob(nothing*)"], "method=glob(nothing*): matches no choice"),
        (["sweep=nothing"], "sweep=nothing: there is no such choice; choose one of: grid, optuna, random"),
        (["sweep=rando"], "did you mean random?"),
        (["sweep.folder=/dev/null/x", "seed=0,1"], "/dev/null/x: cannot make a sweep folder there"),
        (["sweep._target_=os.system"], "see fsl list sweep"),
        (["sweep._target_=fewshot_runner.intervals.interval"], "not a class of fewshot_runner"),
        (["sweep._target_=fewshot_runner.methods.siamese.Siamese"], "not a Search"),
        (["launcher=parallel", "launcher.workers=0"], "launcher.workers=0"),
        (["launcher=parallel", "++launcher.wokers=2"], "did you mean workers?"),
        (["sweep=random", "sweep.trials=0"], "sweep.trials=0"),
        (["sead=0,1"], "sead: there is no such key; did you mean seed?"),
        (["sweep.trials=4", "seed=0,1"], "sweep.trials: belongs to sweep=optuna, sweep=random"),
        (["sweep.pruner.n_warmup_steps=4", "seed=0,1"], "sweep.pruner.n_warmup_steps: belongs to sweep=optuna;"),
        (["launcher.workers=2", "seed=0,1"], "launcher.workers: belongs to launcher=parallel"),
        (["sweep.trails=4", "sweep=random", "seed=0,1"], "sweep.trails: there is no such key; did you mean sweep.tri"),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_runs(refused, words, told):
    assert told in refused("train", "-m", *words)


@pytest.mark.parametrize("many", ["-m", "--multirun", "--multi"])
@pytest.mark.parametrize(
    "words", [["--config-name=train"], ["--cfg", "job"], ["--package", "trainer"], ["--info", "all"], ["--run"]]
)
def test_options_for_one_job_are_refused_with_a_sweep_and_hydras_own_does_not_run(refused, quick, many, words):
    said = refused("train", many, *words, *quick(), "seed=0,1")
    assert said.startswith(f"fsl: {words[0].partition('=')[0]}: ")
    assert "leave it out" in said


def test_a_sweep_has_help(fsl, elsewhere):
    for words in (["--help"], ["--hel"], ["-h"], ["--hydra-help"], ["--version"]):
        answer = fsl("train", "-m", *words)
        assert answer.code == 0, answer.err
        assert answer.out == fsl("train", *words).out != ""
    assert not list(elsewhere.iterdir())


def test_the_groups_of_sweeps_are_refused_without_one(refused):
    assert "give -m" in refused("train", "launcher=parallel")


def test_dry_run_tells_what_is_missing(fsl, quick, tmp_path, started):
    """In the words of what the command then does."""
    command = ["train", "-m", *quick(), "seed=0,1,2,3", f"output_dir={tmp_path}"]
    assert fsl("train", "-m", *quick(), "seed=1,2,3", f"output_dir={tmp_path}").code == 0
    for run in runs_below(tmp_path):
        if state := {2: "failed", 3: "stopped"}.get(run.read_config()["seed"]):
            run.write_status(state, step=2, seconds=1.0)
            run.summary.unlink()
    before = sorted(tmp_path.rglob("*"))
    answer = fsl(*command, "--dry-run")
    assert answer.code == 0
    assert sorted(tmp_path.rglob("*")) == before
    states = {"pending": [], "to be resumed": []}
    for line in answer.out.splitlines():
        for state in states:
            if line.endswith(f" {state}"):
                states[state].append(int(line.split()[1]))
    started.clear()
    assert fsl(*command).code == 0
    assert started == [("start", 0), ("resume", 2), ("resume", 3)]
    assert states == {"pending": [0], "to be resumed": [2, 3]}


def test_random_search_draws_the_same_and_adds_to_itself(fsl, quick, tmp_path, started):
    drawn = ["sweep=random", "method.optimizer.lr=tag(log,interval(1e-4,1e-1))", "seed=0,1,2"]
    command = ["train", "-m", *quick(), "trainer.max_steps=1", *drawn, f"output_dir={tmp_path}"]
    assert fsl(*command, "sweep.trials=2").code == 0
    first = [job["overrides"] for job in manifest_of(tmp_path)["jobs"]]
    assert fsl(*command, "sweep.trials=4").code == 0
    jobs = manifest_of(tmp_path)["jobs"]
    assert [job["overrides"] for job in jobs[:2]] == first
    assert len(jobs) == len(started) == 4
    assert fsl(*command, "sweep.trials=4", "hardware.threads=1", "name=again").code == 0
    assert len(started) == 4, "what changes no result makes no other draws"
    for job in jobs:
        [rate] = [float(word.partition("=")[2]) for word in job["overrides"] if word.startswith("method.optimizer.lr=")]
        assert 1e-4 <= rate <= 1e-1


def test_the_best_is_of_jobs_with_one_figure_of_validation():
    result = {"name": "5way1shot", "dataset": "d", "split": "s", "mode": "inductive", "metric": "accuracy"}
    done = {"state": "done", "result": result, "monitor": "loss"}
    jobs = [{**done, "fingerprint": name, "validation": value} for name, value in zip("abc", (2, 0.5, 1), strict=True)]
    alike = {name: {"episode.n_way": 5} for name in "abcd"}
    assert best_of(jobs, alike) is jobs[1]
    other = {**jobs[0], "fingerprint": "d", "monitor": "accuracy", "validation": 0.6}
    assert best_of([*jobs, other], alike) is None
    assert best_of([jobs[0], {"state": "failed"}], alike) is jobs[0]
    assert best_of(jobs[:1], alike) is None, "of one job there is nothing to choose"
    assert best_of(jobs, alike | {"c": {"episode.n_way": 20}}) is None
    assert best_of(jobs[:2], alike | {"c": {"episode.n_way": 20}}) is jobs[1]


def test_settings_of_a_sweep_may_stand_in_a_yaml(fsl, quick, tmp_path, started):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "seeds.yaml").write_text(
        "# @package _global_\n# Two seeds\nsweep:\n  params:\n    seed: 3,4\n"
    )
    place = f"--config-dir={tmp_path}/mine"
    answer = fsl("train", "-m", place, *quick(), "experiment=seeds", f"output_dir={tmp_path}/runs")
    assert answer.code == 0, answer.err
    assert started == [("start", 3), ("start", 4)]


def test_two_processes_do_not_share_a_sweep(fsl, quick, tmp_path):
    from filelock import FileLock

    command = ["train", "-m", *quick(), "seed=0,1", "trainer.max_steps=0", f"output_dir={tmp_path}"]
    assert fsl(*command).code == 0
    [folder] = (tmp_path / "sweeps").iterdir()
    with FileLock(folder / ".lock"):
        answer = fsl(*command)
    assert answer.code == 2
    assert "another process is at work on this sweep" in answer.err
