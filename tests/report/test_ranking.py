"""Which runs stand in one ranking, which are one experiment, and what is compared with what."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fewshot_runner.errors import UserError
from fewshot_runner.intervals import wilson_interval
from fewshot_runner.report.cells import columns_of
from fewshot_runner.report.groups import group_runs
from fewshot_runner.report.ranking import find_baseline, rank
from fewshot_runner.report.records import find_records

RANDOM = np.random.default_rng(3)
GOOD, FAIR = RANDOM.uniform(0.6, 1.0, 30), RANDOM.uniform(0.5, 0.9, 30)


@pytest.fixture
def records(tmp_path):
    return lambda: find_records([tmp_path])[0]


def test_the_best_is_first_and_the_others_are_paired_with_it(make, config, result, records):
    make(config(lr=1), results=[result(FAIR)]), make(config(lr=2), results=[result(GOOD)])
    [ranking] = rank(records())
    assert [row.group.settings["method.optimizer.lr"] for row in ranking.rows] == [2, 1]
    assert ranking.reference is ranking.rows[0]
    difference = ranking.rows[1].difference
    expected = stats.ttest_rel(FAIR.astype(np.float32), GOOD.astype(np.float32))
    assert difference.paired
    assert difference.p == pytest.approx(expected.pvalue, rel=1e-4)
    assert difference.p_holm == difference.p


@pytest.mark.parametrize(
    "other",
    [
        {"split": "images"}, {"split_hash": "other"}, {"dataset": "circles"}, {"protocol": "runs"}, {"n_way": 20},
        {"n_shot": 5}, {"n_query": 1}, {"within_group": True}, {"episode_seed": 4}, {"mode": "transductive"},
        {"bn_mode": "support"}, {"imbalance": 2.0}, {"part": "val"}, {"unit": "queries"},
        {"images_hash": "other"}, {"shown": "centre=true"},
    ],
)  # fmt: skip
def test_trap_09_what_was_measured_otherwise_is_not_ranked_with_it_unless_forced(make, config, result, records, other):
    make(config(lr=1), results=[result(FAIR)]), make(config(lr=2), results=[result(GOOD, **other)])
    rankings = rank(records())
    assert [len(ranking.rows) for ranking in rankings] == [1, 1]
    assert not any(ranking.forced for ranking in rankings)
    [forced] = rank(records(), forced=True)
    assert forced.forced
    assert len(forced.rows) == 2
    assert not forced.rows[1].difference.paired


def test_other_metrics_are_not_ranked_together(make, config, result, records):
    other = result(GOOD, metric="map_at_5", map_at_5=float(GOOD.mean()))
    del other["accuracy"]
    make(config(lr=1), results=[result(FAIR)]), make(config(lr=2), results=[other])
    assert [ranking.tests[0].metric for ranking in rank(records())] == ["accuracy", "map_at_5"]


def test_results_of_another_age_are_ranked_with_those_of_today(make, config, result, records):
    old = {key: value for key, value in result(GOOD).items() if key not in ("unit", "tasks_count", "metric", "bn_mode")}
    make(config(lr=1), results=[old]), make(config(lr=2), results=[result(FAIR, imbalance=None)])
    [ranking] = rank(records())
    assert ranking.rows[1].difference.paired


def test_runs_with_more_episodes_are_compared_on_those_they_share(make, config, result, records):
    longer = np.concatenate([GOOD, RANDOM.uniform(0.6, 1.0, 50)])
    make(config(lr=1), results=[result(longer)]), make(config(lr=2), results=[result(FAIR)])
    [ranking] = rank(records())
    difference = {row.group.settings["method.optimizer.lr"]: row.difference for row in ranking.rows}[2]
    assert difference.mean == pytest.approx(FAIR.mean() - GOOD.mean(), abs=1e-6)
    assert difference.over_tasks.count == 30


def test_seeds_with_unequal_episodes_are_averaged_over_those_that_all_have(make, config, result, records):
    longer = np.concatenate([GOOD[:10], np.zeros(30)])
    figures = [longer, GOOD[:10] + 0.02, GOOD[:10] - 0.01]
    for seed, values in enumerate(figures):
        make(config(seed=seed), results=[result(values)])
    [ranking] = rank(records())
    [row] = ranking.rows
    means = [GOOD[:10].mean() + shift for shift in (0.0, 0.02, -0.01)]
    assert row.n_tasks == 10
    assert row.mean == pytest.approx(np.mean(means), abs=1e-6)
    assert row.sd_seeds == pytest.approx(np.std(means, ddof=1), abs=1e-6)
    assert row.ci95_seeds == pytest.approx(4.302653 * np.std(means, ddof=1) / 3**0.5, abs=1e-6)
    by_task = np.mean([values[:10] for values in figures], axis=0)
    assert row.ci95 == pytest.approx(2.262157 * by_task.std(ddof=1) / 10**0.5, abs=1e-6)


def test_of_several_results_of_a_run_the_one_over_most_episodes_counts(make, result, records):
    make(results=[result(GOOD), result(FAIR[:10]), result(FAIR)])
    [ranking] = rank(records())
    [row] = ranking.rows
    assert row.mean == FAIR.mean()


def test_a_baseline_takes_the_place_of_the_best(make, config, result, records, tmp_path):
    make(config(lr=1), results=[result(GOOD)])
    baseline = make(config(lr=2), results=[result(FAIR)])
    make(config(lr=3), results=[result(FAIR, n_way=20)])
    found = records()
    for named in (str(baseline.path), baseline.path.name, f"{baseline.path.parent.name}/{baseline.path.name}"):
        assert find_baseline(found, named).run.path == baseline.path
    first, second = rank(found, baseline=find_baseline(found, baseline.path.name))
    assert [row.is_reference for row in first.rows] == [False, True]
    assert first.rows[0].difference.mean > 0
    assert second.reference is None
    for wrong in ("nowhere", "abcdef"):  # none, and all three
        with pytest.raises(UserError, match="--baseline"):
            find_baseline(found, wrong)


def test_trap_13_seeds_are_grouped_and_repeats_of_a_seed_are_not_counted_twice(make, config, result, records):
    for seed, shift in ((1, 0.0), (0, 0.02), (1, 0.05)):
        make(config(seed=seed), results=[result(FAIR + shift)])
    make(config(seed=0, lr=2), results=[result(GOOD)])
    first, second = group_runs(records())
    assert (first.seeds, len(first.repeats)) == ([0, 1], 1)
    assert first.repeats[0].run.path.name.startswith("20260101-000000")
    assert (second.seeds, second.repeats) == ([0], [])
    [ranking] = rank(records())
    row = ranking.rows[1]
    means = [FAIR.mean() + 0.02, FAIR.mean() + 0.05]
    assert row.mean == pytest.approx(np.mean(means))
    assert row.sd_seeds == pytest.approx(0.03 / 2**0.5)
    assert row.ci95_seeds == pytest.approx(12.706205 * 0.03 / 2)
    assert row.difference.over_seeds.freedom == 1


def test_what_the_newest_run_of_a_seed_was_not_asked_an_older_one_answers(make, config, result, records):
    """As after fsl eval of the older one, or where only the number of pairs differs, which makes another test."""
    old = make(config(seed=0), results=[result(FAIR), result(GOOD, n_way=20, name="20way1shot")])
    new, other = make(config(seed=0), results=[result(GOOD)]), make(config(seed=1), results=[result(GOOD)])
    common, further = rank(records())
    assert [record.run.path for record in common.rows[0].group.records] == [new.path, other.path]
    assert [record.run.path for record in common.rows[0].group.repeats] == [old.path]
    assert [record.run.path for record in further.rows[0].group.records] == [old.path]
    assert list(further.rows[0].group.repeats) == []
    assert further.rows[0].mean == pytest.approx(GOOD.mean())


def test_runs_that_differ_in_threads_alone_are_one_experiment(make, config, records):
    """A parallel sweep writes how many each of its jobs has."""
    make({**config(seed=0), "hardware": {"threads": "auto"}}), make({**config(seed=1), "hardware": {"threads": 1}})
    [group] = group_runs(records())
    assert group.seeds == [0, 1]


@pytest.mark.parametrize(
    ("seeds", "ordered"),
    [([[1], ["a"]], [["a"], [1]]), (["b", 3, "a", 2.5, True], [True, 2.5, 3, "a", "b"])],
)
def test_seeds_of_any_kind_are_put_in_order(make, config, records, seeds, ordered):
    for seed in seeds:
        make({**config(), "seed": seed})
    [group] = group_runs(records())
    assert group.seeds == ordered


def test_what_was_chosen_makes_no_other_experiment_where_all_settings_are_the_same(make, config, result, records):
    """seed=0 episode=20way1shot episode.n_way=3, and seed=1 episode=5way1shot episode.n_way=3."""
    for seed, episode in enumerate(("20way1shot", "5way1shot")):
        run = {**config(seed=seed), "episode": {"n_way": 3}}
        make({**run, "choices": {**run["choices"], "episode": episode}}, results=[result(FAIR)])
    [group] = group_runs(records())
    assert group.seeds == [0, 1]


def test_data_of_another_choice_are_others_though_only_their_place_differs(make, config, records):
    for name in ("mine", "yours"):
        run = config()
        make({**run, "choices": {**run["choices"], "dataset": name}, "dataset": {"source": {"root": f"/data/{name}"}}})
    assert len(group_runs(records())) == 2


@pytest.mark.parametrize("state", ["failed", "stopped", "running", "pruned"])
def test_a_result_is_not_hidden_by_a_newer_run_that_has_none(make, config, result, records, state):
    made = [
        make(config(), results=[result(FAIR)]),
        make(config(), results=[result(GOOD)]),
        make(config(), state=state),
    ]
    [group] = group_runs(records())
    assert [record.run.path for record in group.records] == [made[1].path]
    assert {record.run.path for record in group.repeats} == {made[0].path, made[2].path}
    [ranking] = rank(records())
    assert ranking.rows[0].mean == pytest.approx(GOOD.mean())


def test_runs_on_other_images_are_another_experiment(make, config, result, records):
    """Three runs before pictures were added and two after; the one that failed belongs to the newest."""
    for figures, images, seed in ((FAIR, "old", 0), (FAIR + 0.02, "old", 1), (GOOD, "new", 0)):
        make(config(seed=seed), results=[result(figures, images_hash=images)])
    failed = make(config(seed=0), state="failed")
    waiting = make(config(seed=2), state="failed")
    old, new = group_runs(records())
    assert (old.seeds, old.repeats) == ([0, 1], [])
    assert (new.seeds, [record.run.path for record in new.repeats]) == ([0, 2], [failed.path])
    assert new.records[1].run.path == waiting.path
    assert [ranking.rows[0].mean for ranking in rank(records())] == pytest.approx([FAIR.mean() + 0.01, GOOD.mean()])
    assert "images new" in rank(records())[1].details


def with_pictures_in(config: dict, place: str) -> dict:
    return {**config, "dataset": {"path": place, "images": place, "source": {"path": place, "images": place}}}


def test_own_pictures_that_were_moved_make_no_other_experiment(make, config, result, records):
    for seed, place in enumerate(("/home/flowers", "/data/flowers", "/data/old_flowers")):
        of_data = {"dataset": Path(place).name, "images_hash": "names", "files_hash": "flowers"}
        make(with_pictures_in(config(seed=seed), place), results=[result(FAIR, **of_data)])
    [group] = group_runs(records())
    assert group.seeds == [0, 1, 2]
    [ranking] = rank(records())
    assert len(ranking.rows[0].results) == 3


def test_trap_09_own_pictures_in_other_folders_are_others_whether_they_have_results_or_not(
    make, config, result, records
):
    make(with_pictures_in(config(), "/a"), results=[result(FAIR, split_hash="1", images_hash="a")])
    make(with_pictures_in(config(), "/b"), results=[result(FAIR, split_hash="1", images_hash="b")])
    divided = make(with_pictures_in(config(), "/b.csv"), results=[result(FAIR, split_hash="2", images_hash="b")])
    began = make(with_pictures_in(config(), "/c"), state="failed")
    began.environment.write_text(json.dumps({"data": {"split_hash": "1", "images_hash": "c"}}))
    resumed = make(with_pictures_in(config(seed=1), "/a"), state="failed")
    resumed.environment.write_text(json.dumps({"data": {"split_hash": "1", "images_hash": "a"}}))
    groups = [[record.run.path for record in group.records] for group in group_runs(records())]
    assert [len(group) for group in groups] == [2, 1, 1, 1]
    assert groups[0][1] == resumed.path
    assert groups[2:] == [[divided.path], [began.path]]


@pytest.mark.parametrize("content", ["{", "[]", '{"data": 3}', '{"data": []}', '{"data": {"images_hash": [1]}}'])
def test_a_run_whose_note_of_its_data_is_damaged_still_stands_in_a_group(make, config, result, records, content):
    make(config(seed=0), results=[result(FAIR)])
    make(config(seed=1), state="failed").environment.write_text(content)
    groups = group_runs(records())
    assert sorted(seed for group in groups for seed in group.seeds) == [0, 1]


def test_a_baseline_may_be_one_of_several_seeds(make, config, result, records):
    for seed in (0, 1):
        make(config(seed=seed), results=[result(FAIR)])
    make(config(lr=2), results=[result(GOOD)])
    found = records()
    [ranking] = rank(found, baseline=found[1])
    assert ranking.reference.group.seeds == [0, 1]


def test_a_seed_that_has_not_been_tested_is_left_out_of_the_figures(make, config, result, records):
    make(config(seed=0), results=[result(GOOD)]), make(config(seed=1), state="running")
    [ranking] = rank(records())
    assert ranking.rows[0].group.seeds == [0]
    assert ranking.rows[0].sd_seeds is None


@pytest.mark.parametrize("damage", ["missing", "short", "other"])
def test_without_the_figures_of_the_tasks_there_is_no_difference(make, config, result, records, damage):
    make(config(lr=1), results=[result(GOOD)])
    run = make(config(lr=2), results=[result(FAIR)])
    [file] = run.tasks.iterdir()
    if damage == "missing":
        file.unlink()
    elif damage == "short":
        file.write_bytes(file.read_bytes()[:-3])
    else:  # those of another result
        np.save(file, GOOD.astype(np.float32))
    [ranking] = rank(records())
    assert ranking.rows[1].mean == FAIR.mean()
    assert ranking.rows[1].difference is None


def test_fixed_tasks_cannot_become_more(make, config, result, records):
    close = GOOD - RANDOM.choice([0.05, -0.04], 30)
    for seed, needs in ((None, False), (3, True)):
        make(config(lr=seed or 0.5), results=[result(GOOD, episode_seed=seed)])
        make(config(lr=9 + (seed or 0)), results=[result(close, episode_seed=seed)])
        ranking = rank(records())[-1]
        [difference] = [row.difference for row in ranking.rows if row.difference is not None]
        assert not difference.told_apart
        assert (difference.more_tasks is not None) == needs


def test_results_may_be_chosen(make, result, records):
    make(results=[result(GOOD), result(FAIR, n_way=20, name="20way1shot")])
    [ranking] = rank(records(), wanted=lambda each: each["name"] == "20way1shot")
    assert ranking.title == "squares classes 20way1shot"
    assert rank([]) == []
    assert rank([], forced=True) == []


def test_forced_rows_of_tests_with_one_title_are_told_apart(make, config, result, records):
    run = [result(RANDOM.random(20)), result(RANDOM.random(20), episode_seed=1)]
    make(config(), results=run)
    make(config("pixels"), results=[result(RANDOM.random(20), n_shot=5, name="5way5shot")])
    [ranking] = rank(records(), forced=True)
    tests = sorted(columns["test"] for columns in columns_of(ranking).rows)
    assert tests == [
        "squares classes 5way1shot (episode_seed=1), inductive",
        "squares classes 5way1shot (episode_seed=3), inductive",
        "squares classes 5way5shot, inductive",
    ]


def test_seeds_without_a_mistake_have_the_interval_of_one(make, config, result, records):
    for seed in (0, 1):
        make(config(seed=seed), results=[result(np.ones(150))])
    [row] = rank(records())[0].rows
    assert row.ci95 == pytest.approx(wilson_interval(np.ones(150)))
    assert row.ci95 > 0.01


def test_seeds_that_tell_pictures_right_or_wrong_have_a_shares_interval(make, config, result, records):
    """Of 20 pictures, one that one of two seeds mistakes: as for 19.5 right ones, by Wilson's formula."""
    right = np.ones((2, 20))
    right[0, 0] = 0
    for seed, values in enumerate(right):
        make(config(seed=seed), results=[result(values, unit="images", episode_seed=None)])
    [row] = rank(records())[0].rows
    z = 1.959964
    low = (19.5 + z**2 / 2 - z * (19.5 * 0.025 + z**2 / 4) ** 0.5) / (20 + z**2)
    assert row.ci95 == pytest.approx(0.975 - low, abs=1e-6)


def test_against_the_best_more_is_corrected_for_than_against_a_baseline(make, config, result, records):
    """Three rows: of the best, 3 p and 2 p; of one that was named, 2 p and p."""
    slight = FAIR + RANDOM.normal(0, 0.05, 30)
    first, *_ = [make(config(lr=k), results=[result(each)]) for k, each in enumerate((FAIR, slight, FAIR + 0.01))]
    for baseline, factors in ((None, (3, 2)), (first, (2, 1))):
        compared = records()
        [ranking] = rank(compared, baseline=baseline and find_baseline(compared, str(first.path)))
        tested = sorted((d.p, d.p_holm) for row in ranking.rows if (d := row.difference) is not None)
        least, next_p = (min(1, factor * p) for factor, (p, _) in zip(factors, tested, strict=True))
        assert [holm for _, holm in tested] == pytest.approx([least, max(least, next_p)])


def test_what_holm_does_not_tell_apart_is_told_what_it_would_take(make, config, result, records):
    """Three runs, so three pairs: a test at 0.05 / 3. A normal distribution needs ((2.394 + 0.842) s / d)^2 tasks."""
    random = np.random.default_rng(8)
    best = random.uniform(0.6, 1.0, 200)
    noise = random.normal(0, 0.05, 200)
    noise -= noise.mean()
    for lr, loss in ((1, 0.0), (2, 2.2 * 0.05 / 200**0.5), (3, 0.0001)):
        make(config(lr=lr), results=[result(best - loss + (lr > 1) * np.roll(noise, lr))])
    [ranking] = rank(records())
    row = {row.group.settings["method.optimizer.lr"]: row for row in ranking.rows}[2]
    difference = row.difference
    assert difference.p < 0.05 < difference.p_holm
    assert not difference.told_apart
    by_hand = ((2.394 + 0.842) / difference.mean) ** 2 * difference.over_tasks.single
    assert difference.more_tasks == pytest.approx(by_hand - 200, rel=0.03)
    assert columns_of(ranking).rows[ranking.rows.index(row)]["needed"] == f"+{difference.more_tasks} episodes"
