"""Search spaces and the searches: what they draw, and that Optuna's goes on where it was stopped."""

import hashlib
import json
import math
import shutil
from collections import Counter
from itertools import chain, islice
from pathlib import Path

import pytest

from fewshot_runner.cli.compose import Composer, compose, parsed
from fewshot_runner.cli.sweeps.multirun import sweep_name
from fewshot_runner.cli.sweeps.search.grid import Grid
from fewshot_runner.cli.sweeps.search.random import Random
from fewshot_runner.cli.sweeps.search.space import Choice, Interval, space_of
from fewshot_runner.errors import UserError


def drawn(search, *overrides: str, folder: Path = Path()) -> list[dict[str, str]]:
    found = chain.from_iterable(search.proposals(space_of(parsed(overrides)), folder))
    return [dict(word.split("=", 1) for word in proposal.overrides) for proposal in found]


def test_a_space_has_lists_ranges_and_intervals():
    words = [
        "a=1,x,[2,3]",
        "b=range(1,4)",
        "c=interval(0,2)",
        "d=tag(log,interval(1e-3,1))",
        "e=int(interval(1,3))",
        "+f=q",
    ]
    assert space_of(parsed(words)) == {
        "a": Choice(("1", "x", "[2,3]")),
        "b": Choice(("1", "2", "3")),
        "c": Interval(0.0, 2.0, log=False, integer=False),
        "d": Interval(1e-3, 1.0, log=True, integer=False),
        "e": Interval(1, 3, log=False, integer=True),
        "+f": Choice(("q",)),
    }


@pytest.mark.parametrize(
    "words",
    [
        ["seed=1", "seed=2"],
        ["seed=1", "++seed=2", "seed=3"],
        ["dataset.augment.warp={rotation:0}", "dataset.augment.warp={scale:0}"],
        ["dataset.tests=null", "dataset.tests={extra:{protocol:episodes,n_way:2}}"],
        ["method.optimizer.lr=1", "method.optimizer={lr:2}", "method.optimizer.lr=3"],
        ["method.optimizer={lr:2}", "method.optimizer.lr=1", "method.optimizer={weight_decay:3}"],
        ["method={optimizer:{lr:0.5}}", "method=siamese", "method.optimizer.lr=0.1"],
        ["method.optimizer.lr=0.1", "method={optimizer:{lr:0.05}}"],
        ["~trainer.log_every", "+trainer.log_every=3"],
        ["name=str(1)"],
        ["name='a b, c'", "name=d"],
    ],
)
def test_a_job_takes_repeated_settings_as_one_command_does(words):
    [[proposal]] = Grid().proposals(space_of(parsed(words)), Path())
    assert Composer()(proposal.overrides) == compose(words)


def test_the_grid_is_every_combination_in_the_order_of_nested_loops():
    found = drawn(Grid(), "a=1,2", "b=x", "c=5,6,7")
    assert [(job["a"], job["b"], job["c"]) for job in found] == [(a, "x", c) for a in "12" for c in "567"]


def test_random_draws_are_spread_evenly_on_their_scale():
    n = 2000
    found = drawn(
        Random(trials=n, seed=0), "a=1,2,3,4", "b=interval(2,4)", "c=tag(log,interval(1e-4,1))", "d=int(interval(1,5))"
    )
    error = 4 / math.sqrt(n)  # four standard errors of a share of a half, doubled
    for values in "1234":
        assert sum(job["a"] == values for job in found) / n == pytest.approx(0.25, abs=error)
    assert sum(float(job["b"]) < 3 for job in found) / n == pytest.approx(0.5, abs=error)
    assert sum(float(job["c"]) < 1e-2 for job in found) / n == pytest.approx(0.5, abs=error)
    for value in "12345":
        assert sum(job["d"] == value for job in found) / n == pytest.approx(0.2, abs=error)
    both = sum(float(job["b"]) < 3 and float(job["c"]) < 1e-2 for job in found) / n
    assert both == pytest.approx(0.25, abs=error)  # drawn independently
    assert found[:7] == drawn(
        Random(trials=7, seed=0), "d=int(interval(1,5))", "c=tag(log,interval(1e-4,1))", "b=interval(2,4)", "a=1,2,3,4"
    )
    assert found[:7] != drawn(Random(trials=7, seed=1), "a=1,2,3,4", "b=interval(2,4)",
                              "c=tag(log,interval(1e-4,1))", "d=int(interval(1,5))")  # fmt: skip


def test_random_draws_follow_from_the_keys_that_vary_alone():
    space = ["b=interval(2,4)", "a=1,2,3"]
    alone = drawn(Random(trials=6, seed=0), *space)
    for fixed in ("Z=1", "aa=1", "zz=[1,2]"):  # before, between and behind the others in the alphabet
        beside = drawn(Random(trials=6, seed=0), *space, fixed)
        assert [{key: job[key] for key in "ab"} for job in beside] == alone
        key, _, value = fixed.partition("=")
        assert {job[key] for job in beside} == {value}


@pytest.mark.parametrize(("low", "high"), [(-3, 3), (-5, -1)])
def test_whole_numbers_below_zero_are_as_likely_as_others(low: int, high: int):
    """Every value of a fine grid of shares: no value takes more of them than another."""
    interval = Interval(low, high, log=False, integer=True)
    n_values, each = high - low + 1, 100
    found = Counter(int(interval.at((k + 0.5) / (n_values * each))) for k in range(n_values * each))
    assert found == dict.fromkeys(range(low, high + 1), each)


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("x=tag(log,interval(0,1))", "begin above 0"),
        ("x=tag(log,interval(-1,1))", "begin above 0"),
        ("x=tag(log,int(interval(0,8)))", "begin above 0"),
        ("x=interval(3,1)", "x=interval(1,3)"),
    ],
)
def test_an_interval_that_holds_nothing_to_draw_is_refused(word: str, remedy: str):
    with pytest.raises(UserError) as error:
        space_of(parsed([word]))
    assert str(error.value).startswith("x=")
    assert remedy in str(error.value)


SPACE = ("x=interval(-4,4)", "kind=a,b", "fixed=1")


def value_of(settings: dict[str, str]) -> float:
    """Best at x = 1 of kind b."""
    return -((float(settings["x"]) - 1) ** 2) - 5 * (settings["kind"] == "a")


def searching(trials: int):
    from fewshot_runner.cli.sweeps.search.optuna import Optuna

    return Optuna(trials=trials, startup_trials=8, seed=0, pruner=None)


def searched(folder: Path, *, trials: int, until: int | None = None, fail: int | None = None) -> list[dict[str, str]]:
    search = searching(trials)
    found = []
    for proposal in islice(chain.from_iterable(search.proposals(space_of(parsed(SPACE)), folder)), until):
        found.append(dict(word.split("=", 1) for word in proposal.overrides))
        if proposal.number + 1 != until:  # the last is left under way
            failed = proposal.number == fail
            search.tell(proposal, "failed" if failed else "done", None if failed else value_of(found[-1]))
    return found


def test_optuna_finds_the_best_and_goes_on_as_if_never_stopped(tmp_path):
    pytest.importorskip("optuna")
    for name in ("whole", "torn"):
        (tmp_path / name).mkdir()
    whole = searched(tmp_path / "whole", trials=30)
    assert max(map(value_of, whole)) > -0.05
    assert max(map(value_of, whole)) > max(map(value_of, drawn(Random(trials=30, seed=0), *SPACE)))
    assert {job["fixed"] for job in whole} == {"1"}
    assert len({job["x"] for job in whole}) == 30  # no draw is repeated
    for stop in (3, 12):
        searched(tmp_path / "torn", trials=30, until=stop)
    assert searched(tmp_path / "torn", trials=30) == whole
    assert searched(tmp_path / "torn", trials=30) == whole  # nothing is new
    assert len(searched(tmp_path / "torn", trials=32)) == 32


def test_a_failed_trial_is_proposed_again_and_counts_once_it_is_done(tmp_path):
    optuna = pytest.importorskip("optuna")
    searched(tmp_path, trials=10, fail=4)
    for _ in range(2):
        assert len(searched(tmp_path, trials=10)) == 10
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "optuna.journal"))
    study = optuna.load_study(study_name="fsl", storage=optuna.storages.JournalStorage(backend))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4 + ["FAIL"] + ["COMPLETE"] * 6
    assert study.trials[10].params == study.trials[4].params


def test_a_folder_that_holds_another_search_is_refused(tmp_path):
    pytest.importorskip("optuna")
    assert len(drawn(searching(2), "x=interval(1,2)", folder=tmp_path)) == 2
    search = searching(3)
    for [proposal] in list(search.proposals(space_of(parsed(["x=interval(1,3)"])), tmp_path))[1:]:  # ends may be moved
        search.tell(proposal, "done", 0.5)
    assert proposal.number == 2
    for words in (["x=interval(1,2)", "y=1,2"], ["z=interval(1,2)"], ["x=1,2"], ["x=tag(log,interval(1,2))"]):
        for _ in range(2):  # what was refused leaves nothing behind
            with pytest.raises(UserError, match=r"folder=.* a search over other settings, choices or scales \(x\)"):
                drawn(searching(4), *words, folder=tmp_path)
    assert len(drawn(searching(4), "x=interval(1,2)", folder=tmp_path)) == 4


def test_a_search_that_was_killed_while_it_drew_settings_draws_them_all(tmp_path):
    """Wherever its journal ends, line by line: the settings are those of a search that was left in peace."""
    pytest.importorskip("optuna")
    words = ["x=interval(1,2)", "kind=a,b,c", "z=interval(-1,1)"]
    (tmp_path / "whole").mkdir()
    whole = drawn(searching(3), *words, folder=tmp_path / "whole")
    lines = (tmp_path / "whole/optuna.journal").read_bytes().splitlines(keepends=True)
    n_half_made = 0
    for end in range(len(lines) + 1):
        (tmp_path / "killed").mkdir()
        (tmp_path / "killed/optuna.journal").write_bytes(b"".join(lines[:end]))
        assert drawn(searching(3), *words, folder=tmp_path / "killed") == whole
        n_half_made += len((tmp_path / "killed/optuna.journal").read_bytes().splitlines()) > len(lines)
        shutil.rmtree(tmp_path / "killed")
    assert n_half_made >= 3 * len(words)


@pytest.mark.parametrize("word", ["seed=shuffle(8,7,6,5,4,3,2,1)", "seed=shuffle(range(1,9))"])
def test_shuffled_values_keep_their_order_whenever_they_are_given(word):
    """So the same command finds the same sweep, and a random search draws the same jobs."""
    spaces = [space_of(parsed([word])) for _ in range(5)]
    values = spaces[0]["seed"].values
    assert sorted(values) == list("12345678")
    assert values not in (tuple("12345678"), tuple("87654321"))
    assert spaces == [spaces[0]] * 5
    assert len({sweep_name(space, {}) for space in spaces}) == 1


def test_a_sweep_is_the_same_however_it_is_called_and_logged_and_another_on_other_data():
    name = sweep_name(space_of(parsed(["seed=0,1"])), {})
    for word in ("name=x", "hardware.threads=1", "trainer.log_every=9", "++trainer.checkpoint_every=9"):
        assert sweep_name(space_of(parsed(["seed=0,1", word])), {}) == name, word
    for word in ("dataset.path=/new", "dataset.root=/new", "trainer.max_steps=9", "eval.episodes=9"):
        assert sweep_name(space_of(parsed(["seed=0,1", word])), {}) != name, word


def test_sweeps_of_earlier_versions_are_found_by_their_names():
    """By the first eight digits of the digest of search and space in sorted JSON, values in the order given."""
    for values in (("0", "1", "2"), ("2", "0", "1")):
        content = {"search": {"_target_": "t"}, "space": [["seed", f"Choice(values={values})"]]}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        assert sweep_name(space_of(parsed([f"seed={','.join(values)}"])), {"_target_": "t"}) == f"seed-{digest[:8]}"


def test_a_damaged_journal_is_named_with_its_remedy(tmp_path):
    pytest.importorskip("optuna")
    drawn(searching(2), "x=interval(0,1)", folder=tmp_path)
    journal = tmp_path / "optuna.journal"
    journal.write_bytes(journal.read_bytes()[:60] + b"\n")
    with pytest.raises(UserError, match=r"optuna.journal: damaged .*remove it"):
        drawn(searching(2), "x=interval(0,1)", folder=tmp_path)


@pytest.mark.parametrize("sweep", ["random", "optuna"])
def test_a_search_needs_something_to_choose(refused, sweep):
    pytest.importorskip("optuna")
    said = refused("train", "-m", f"sweep={sweep}", "method.optimizer.lr=1e-3")
    assert f"sweep={sweep}: nothing to search" in said
    assert "method.optimizer.lr=tag(log,interval(1e-4,1e-1))" in said


def test_figures_of_several_kinds_are_not_searched(fsl, tiny, tmp_path):
    """An accuracy and an area under a curve: jobs with another figure than the first one's are refused."""
    pytest.importorskip("optuna")
    words = [
        *tiny(),
        "trainer.max_steps=1",
        "eval.protocol=verification",
        "sweep=optuna",
        "sweep.trials=4",
        "trainer.monitor=accuracy,auc",
    ]
    answer = fsl("train", "-m", *words, f"output_dir={tmp_path}")
    assert answer.code == 3, answer.err
    [manifest] = tmp_path.glob("sweeps/*/manifest.json")
    jobs = json.loads(manifest.read_text())["jobs"]
    monitors = [next(w for w in job["overrides"] if w.startswith("trainer.monitor=")) for job in jobs]
    assert len(set(monitors)) == 2
    assert [job["state"] for job in jobs] == ["done" if each == monitors[0] else "failed" for each in monitors]
    assert all(monitors[0].partition("=")[2] in job["reason"] for job in jobs if job["state"] == "failed")


def test_a_search_from_the_command_line_ends_with_a_ready_command(fsl, tiny, tmp_path):
    pytest.importorskip("optuna")
    words = [*tiny(), "trainer.max_steps=1", "sweep=optuna", "method.optimizer.lr=tag(log,interval(1e-4,1e-1))"]
    assert fsl("train", "-m", *words, "sweep.trials=2", f"output_dir={tmp_path}").code == 0
    answer = fsl("train", "-m", *words, "sweep.trials=3", f"output_dir={tmp_path}")
    assert answer.code == 0, answer.err
    assert answer.err.count("done already") == 2
    assert "best on validation: fsl train " in answer.out
    [manifest] = tmp_path.glob("sweeps/*/manifest.json")
    jobs = json.loads(manifest.read_text())["jobs"]
    assert len(jobs) == len({job["run"] for job in jobs}) == 3


@pytest.mark.parametrize(
    ("package", "words"),
    [("optuna", ["sweep=optuna"]), ("submitit", ["launcher=slurm"]), ("ray", ["launcher=ray"])],
)
def test_a_missing_package_is_named_with_its_remedy(refused, monkeypatch, package, words):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    said = refused("train", "-m", *words, "seed=0,1")
    assert f"needs {package}" in said
    assert "pip install 'fewshot-runner[" in said


def test_a_search_does_not_learn_from_the_figures_of_other_settings(fsl, quick, tmp_path):
    pytest.importorskip("optuna")
    lr = "method.optimizer.lr=tag(log,interval(1e-3,1e-2))"
    search = ["train", "-m", "sweep=optuna", *quick(), lr, f"output_dir={tmp_path}", f"sweep.folder={tmp_path}/search"]
    assert fsl(*search, "sweep.trials=2").code == 0
    before = json.loads((tmp_path / "search" / "manifest.json").read_text())
    answer = fsl(*search, "sweep.trials=3", "trainer.clip_norm=5")
    assert answer.code == 2
    assert "holds a search whose figures are of other settings" in answer.err
    assert json.loads((tmp_path / "search" / "manifest.json").read_text()) == before
    assert fsl(*search, "sweep.trials=3").code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["episode.n_way=2,3"], "episode.n_way="),
        (["eval.seed=0,1"], "eval.seed="),
        (["trainer.val_episodes=4,5"], "trainer.val_episodes="),
    ],
)
def test_a_search_compares_figures_of_the_same_validation_alone(fsl, quick, tmp_path, words, told):
    pytest.importorskip("optuna")
    search = ["train", "-m", "sweep=optuna", "sweep.trials=6", "sweep.startup_trials=6", *quick()]
    answer = fsl(*search, *words, f"output_dir={tmp_path}")
    assert answer.code == 3
    assert f"failed: {told}" in answer.err
    assert "this search compares validation figures, and began with" in answer.err


@pytest.mark.parametrize("sweep", ["sweep=random", "sweep=optuna"])
def test_a_misspelt_key_of_an_interval_is_refused_before_anything_is_tried(refused, quick, sweep):
    said = refused("train", "-m", sweep, *quick(), "method.optimizer.lrr=tag(log,interval(1e-4,1e-1))")
    assert "did you mean method.optimizer.lr?" in said


@pytest.mark.parametrize("sweep", ["sweep=random", "sweep=optuna"])
@pytest.mark.parametrize("ends", ["0.001,inf", "nan,0.01"])
def test_intervals_end_somewhere(refused, quick, sweep, ends):
    assert "give two finite numbers" in refused("train", "-m", sweep, *quick(), f"method.optimizer.lr=interval({ends})")


def test_seeds_of_draws_are_not_negative(refused, quick):
    assert "sweep.seed=-1: give 0 or more" in refused(
        "train", "-m", "sweep=random", "sweep.seed=-1", *quick(), "seed=0,1"
    )
