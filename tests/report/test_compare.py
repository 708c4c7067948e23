"""Tables made from run folders alone; the folders are written here by hand."""

import re
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from fewshot_runner.report.compare import comparison
from fewshot_runner.report.config import config_tree
from fewshot_runner.report.flat import flat_rows
from fewshot_runner.report.order import sorted_rows
from fewshot_runner.report.predictions import prediction_table
from fewshot_runner.report.ranking import rank
from fewshot_runner.report.records import find_records
from fewshot_runner.report.results import results_table

RESULT = {
    "name": "5way1shot", "dataset": "squares", "split": "classes", "accuracy": 0.97313, "ci95": 0.00084,
    "episodes": 10000, "episode_seed": 3, "mode": "inductive",
}  # fmt: skip
FIGURES = np.random.default_rng(0).choice([0.2, 0.4, 0.6, 0.8, 1.0], 50)


def text_of(what) -> str:
    console = Console(width=400, highlight=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def plain_of(path, *, width: int, **options) -> str:
    records, _ = find_records([path])
    return comparison(rank(records, **options), records, width=width).plain


def table_of(path, **options) -> str:
    return plain_of(path, width=200, **options)


def ranked_lines(table: str) -> list[str]:
    return [line for line in table.splitlines() if line[2:6] == "2026" and " %" in line]


def rows_of(path, **options) -> list[dict]:
    records, _ = find_records([path])
    return flat_rows(rank(records, **options), records)


def test_only_what_differs_becomes_a_column(make, config, tmp_path):
    make(config(seed=0)), make(config(seed=1))
    first, second = rows_of(tmp_path)
    assert (first["seed"], second["seed"]) == (0, 1)
    assert first.keys() == {"run", "state", "seed", "seconds"}


def test_a_choice_tells_what_it_brings_with_it(make, config, tmp_path):
    make(config("siamese", hidden=3)), make(config("prototypical", distance="cosine"))
    rows = rows_of(tmp_path)
    assert [row["method"] for row in rows] == ["siamese", "prototypical"]
    assert not any(key.startswith("method.") for row in rows for key in row)


def test_a_setting_of_one_choice_is_a_column(make, config, result, tmp_path):
    make(config(lr=0.1), results=[result(FIGURES)]), make(config(lr=0.2), results=[result(FIGURES)])
    assert [row["method.optimizer.lr"] for row in rows_of(tmp_path)] == [0.1, 0.2]
    assert "method.optimizer.lr" in table_of(tmp_path)


def test_results_stand_with_their_interval_and_the_number_and_seed_of_the_episodes(make, result, tmp_path):
    run = make(results=[result(FIGURES)])
    [row] = rows_of(tmp_path)
    assert row["run"] == str(run.path)
    assert row["squares classes 5way1shot"] == FIGURES.mean()
    assert row["squares classes 5way1shot ci95"] == 1.96 * FIGURES.std(ddof=1) / 50**0.5
    table = table_of(tmp_path)
    assert f"{100 * FIGURES.mean():.2f} ± {196 * FIGURES.std(ddof=1) / 50**0.5:.2f} %" in table
    assert "50 episodes of seed 3" in table
    assert run.path.name in table


def test_the_difference_to_the_best_stands_with_interval_p_and_what_would_tell_them_apart(
    make, config, result, tmp_path
):
    worse = np.where(np.arange(50) < 3, FIGURES - 0.2, FIGURES)
    make(config(lr=0.1), results=[result(worse)]), make(config(lr=0.2), results=[result(FIGURES)])
    table = table_of(tmp_path)
    lines = ranked_lines(table)
    assert lines[0].startswith("* ")  # the best, first
    assert "0.2" in lines[0].split()[2]
    # three differences of -0.2 among 50: mean -0.012, standard deviation 0.2 sqrt(3/50 x 47/49), t = -1.7685
    half = 2.0096 * 0.2 * (3 / 50 * 47 / 49) ** 0.5 / 50**0.5
    assert f"-1.20 ± {100 * half:.2f}" in lines[1]
    assert "0.0832" in lines[1]  # of t = -1.7685 with 49 degrees of freedom
    needed = (1.959964 + 0.841621) ** 2 * 0.2**2 * (3 / 50 * 47 / 49) / 0.012**2
    [more] = [int(word[1:]) for word in lines[1].split() if word.startswith("+")]
    assert more == pytest.approx(needed - 50, abs=3)
    assert "power of 0.8" in table


def test_trap_13_runs_that_differ_in_the_seed_are_one_row_with_both_spreads(make, config, result, tmp_path):
    shifts = [0.0, 0.04, -0.01]
    for seed, shift in enumerate(shifts):
        make(config(seed=seed), results=[result(FIGURES - 0.1 + shift)])
    make(config("prototypical"), results=[result(FIGURES)])
    [first, second] = ranked_lines(table_of(tmp_path))
    assert "0,1,2" in second
    means = [FIGURES.mean() - 0.1 + shift for shift in shifts]
    deviation = np.std(means, ddof=1)
    assert f"± {100 * 4.302653 * deviation / 3**0.5:.2f} ({100 * deviation:.2f})" in second  # over seeds
    over_tasks = 2.009575 * FIGURES.std(ddof=1) / 50**0.5
    assert f"{100 * np.mean(means):.2f} ± {100 * over_tasks:.2f} %" in second
    assert "over seeds" not in first
    row = rows_of(tmp_path)[1]
    name = "squares classes 5way1shot"
    assert row[f"{name} seeds"] == 3
    assert row[f"{name} sd over seeds"] == pytest.approx(deviation)
    assert row[f"{name} mean ci95 over tasks"] == pytest.approx(over_tasks, rel=1e-4)
    assert row[name] == pytest.approx(means[0])


def test_an_older_run_of_the_same_seed_keeps_its_figures_and_takes_no_part(make, config, result, tmp_path):
    make(config(), results=[result(FIGURES - 0.1)]), make(config(), results=[result(FIGURES)])
    make(config(lr=3), results=[result(FIGURES - 0.2)])
    table = table_of(tmp_path)
    assert "20260101-000001-abcdef (1 repeat)" in table
    assert "20260101-000000-abcdef" not in table
    newer, _, older = rows_of(tmp_path)
    name = "squares classes 5way1shot"
    assert older[name] == pytest.approx(FIGURES.mean() - 0.1)
    assert f"{name} tasks" not in older
    assert newer[name] == FIGURES.mean()
    assert newer[f"{name} tasks"] == 50


@pytest.mark.parametrize("width", [80, 200])
def test_what_single_results_were_all_measured_over_is_said_once(make, result, tmp_path, width):
    more = result(FIGURES[:20], n_shot=5, name="5way5shot", mode="inductive", bn_mode="support")
    make(results=[result(FIGURES), more])
    lines = [line.strip() for line in plain_of(tmp_path, width=width).splitlines()]
    common = "episodes, 15 queries a class, split abc"
    said = " ".join(" ".join(lines).split())
    assert said.startswith(f"results with nothing to compare them with {common} run test")
    assert said.count("split abc") == said.count("15 queries a class") == 1
    assert said.count("50 episodes of seed 3, inductive") == 1
    assert said.count("20 episodes of seed 3, inductive, bn support") == 1


def test_of_single_results_on_other_data_each_says_what_it_was_measured_over(make, config, result, tmp_path):
    make(config(lr=0.1), results=[result(FIGURES)])
    make(config(lr=0.2), results=[result(FIGURES, dataset="circles", split_hash="def")])
    lines = table_of(tmp_path).splitlines()
    assert lines[0].endswith("  50 episodes of seed 3, episodes, inductive, 15 queries a class")
    assert [line.split()[-2:] for line in lines[3:5]] == [["split", "abc"], ["split", "def"]]


def test_failed_and_running_runs_stand_apart_with_their_reason(make, config, result, tmp_path):
    make(config(seed=0), results=[result(FIGURES)])
    make(config(seed=1), state="failed", reason="loss is\nnan")
    make(config(seed=2), state="running", updated="2026-01-01T00:00:00+0000")
    table = table_of(tmp_path)
    ranked, apart = table.split("without results")
    assert "failed" not in ranked
    assert [line.split()[:2] for line in apart.splitlines()[3:5]] == [
        ["squares-siamese/20260101-000001-abcdef", "failed"],
        ["squares-siamese/20260101-000002-abcdef", "running"],
    ]
    assert "loss is nan" in apart
    assert "2026-01-01T00:00:00+0000" in apart
    assert rows_of(tmp_path)[1]["reason"] == "loss is\nnan"
    assert rows_of(tmp_path)[2]["state"] == "running"


def test_forced_rankings_say_so(make, config, result, tmp_path):
    make(config(lr=0.1), results=[result(FIGURES)])
    make(config(lr=0.2), results=[result(FIGURES[:20], split="images", split_hash="def")])
    apart = table_of(tmp_path)
    assert "forced" not in apart
    assert "squares classes 5way1shot" in apart
    assert "squares images 5way1shot" in apart
    forced = table_of(tmp_path, forced=True)
    assert forced.startswith("forced: ")
    assert "unpaired" in forced
    assert [row.get("squares images 5way1shot forced") for row in rows_of(tmp_path, forced=True)] == [True, None]


def test_many_settings_share_a_column_and_only_what_differs_is_said_again(make, config, result, tmp_path):
    for k in range(2):
        make(
            config(**{f"a_rather_long_setting_{n}": n + k for n in range(4)}, same=1), results=[result(FIGURES - k / 9)]
        )
    table = table_of(tmp_path)
    assert "method.optimizer.a_rather_long_setting_3=3" in table
    assert "method.optimizer.a_rather_long_setting_3=4" in table
    assert "method.optimizer.same" not in table


def test_names_and_reasons_are_no_markup(make, config, tmp_path):
    named = {**config(), "name": "[red]x[/]"}
    make(named, state="failed", reason="[bold]"), make(config(seed=2), state="failed", reason="a")
    table = table_of(tmp_path)
    assert "[red]x[/]" in table
    assert "[bold]" in table


def test_rows_are_sorted_by_settings_and_figures_and_what_has_none_comes_last(make, config, result, tmp_path):
    for k, lr in enumerate([0.3, 0.1, None, 0.2]):
        make(config(lr=lr), results=[result(np.clip(FIGURES - k / 50, 0, 1))], seconds=[5, 7, 6, 1][k])
    [ranking] = rank(find_records([tmp_path])[0])

    def by(key):
        return [row.group.settings["method.optimizer.lr"] for row in sorted_rows(ranking, key)]

    assert by("method.optimizer.lr") == [0.1, 0.2, 0.3, None]
    assert by("seconds") == [0.2, 0.3, None, 0.1]
    assert by("result") == [0.2, None, 0.1, 0.3]
    assert by("difference") == [0.2, None, 0.1, 0.3]


def test_tests_of_one_name_have_columns_of_their_own(make, result, tmp_path):
    make(results=[result(FIGURES), result(FIGURES - 0.1, n_query=1)])
    [row] = rows_of(tmp_path)
    assert row["squares classes 5way1shot (n_query=15)"] == FIGURES.mean()
    assert row["squares classes 5way1shot (n_query=1)"] == pytest.approx(FIGURES.mean() - 0.1)


def test_a_result_stands_with_interval_episodes_and_seed():
    table = text_of(
        results_table(
            [RESULT, {**RESULT, "name": "lake_runs", "ci95": None, "episode_seed": None}], title="t", width=99
        )
    )
    [first] = [line for line in table.splitlines() if "5way1shot" in line]
    assert first.split() == [
        "5way1shot", "97.31", "±", "0.08", "%", "2.69", "%", "10,000", "episodes", "by", "seed", "3",
    ]  # fmt: skip
    [second] = [line for line in table.splitlines() if "lake_runs" in line]
    assert "±" not in second
    assert "fixed" in second


def test_predictions_name_the_best_and_the_runners_up():
    ranking = [{"class": "cat", "score": 0.75}, {"class": "dog", "score": 0.25}]
    table = text_of(prediction_table([{"image": "a.png", "ranking": ranking}], width=99))
    assert "a.png" in table
    assert "cat 75.0 %" in table
    assert "dog 25.0 %" in table


def test_no_prediction_is_cut_off_where_the_terminal_is_narrow():
    ranking = [{"class": f"a-rather-long-class-{k}", "score": 0.25} for k in range(4)]
    table = text_of(prediction_table([{"image": "some/where/picture.png", "ranking": ranking}], width=60))
    lines = table.splitlines()
    assert lines[2].split() == ["some/where/picture.png", "a-rather-long-class-0", "25.0", "%"]
    assert all(f"{k + 1}.: a-rather-long-class-{k} 25.0 %" in table for k in range(1, 4))
    assert max(map(len, lines)) <= 60


def test_names_with_brackets_are_printed_as_they_are():
    ranking = [{"class": "[red]cat", "score": 0.75}, {"class": "x[/]", "score": 0.25}]
    table = text_of(prediction_table([{"image": "[bold].png", "ranking": ranking}], width=99))
    assert "[bold].png" in table
    assert "[red]cat 75.0 %" in table
    assert "x[/] 25.0 %" in table
    assert "[1, 2]" in text_of(config_tree({"model": {"widths": [1, 2]}, "name": "[red]"}))


def test_tables_of_rich_hold_no_commands_to_the_terminal():
    """A class is called as its folder is, and a picture may have any name."""
    odd = "a\x1b[31m\nb"
    tables = [
        prediction_table(
            [{"image": odd, "ranking": [{"class": odd, "score": 0.75}, {"class": odd, "score": 0.25}]}], width=99
        ),
        results_table([{**RESULT, "name": odd, "dataset": odd, "mode": odd}], title=odd, width=99),
        config_tree({"model": {"widths": odd, "inner": {"a": odd}}, "name": odd, "choices": {"model": odd}}),
    ]
    for table in tables:
        said = text_of(table)
        assert "\x1b" not in said
        assert said.count("a\\x1b[31m b") >= 3


def test_the_config_is_a_tree_headed_by_its_choices(config):
    tree = text_of(config_tree(config()))
    assert "method siamese" in tree
    assert "optimizer" in tree
    assert "lr 0.1" in tree
    assert "choices" not in tree


def test_reports_are_made_without_torch():
    program = (
        "import sys, pkgutil, importlib, fewshot_runner.report as r\n"
        "names = [m.name for m in pkgutil.iter_modules(r.__path__)]; assert names\n"
        "for name in names: importlib.import_module('fewshot_runner.report.' + name)\n"
        "assert 'torch' not in sys.modules and 'hydra' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_tasks_that_a_difference_is_of_are_told_where_their_numbers_differ(make, config, result, tmp_path):
    make(config(lr=0.1), results=[result(FIGURES)]), make(config(lr=0.2), results=[result(FIGURES - 0.1)])
    assert "that both" not in table_of(tmp_path)
    make(config(lr=0.3), results=[result(FIGURES[:20])])
    assert "differences are on the tasks that both answered" in table_of(tmp_path)


def test_what_would_tell_apart_may_be_both_more_tasks_and_more_seeds(make, config, result, tmp_path):
    random = np.random.default_rng(7)
    shared = random.normal(0.6, 0.08, 200)
    for lr, shift in ((0.1, 0.0), (0.2, -0.0078)):
        for seed, of_seed in enumerate((-0.04, 0.0, 0.04)):
            values = shared + shift + of_seed + 0.14 * (lr == 0.2) * (random.permutation(200) - 99.5) / 115
            make(config(lr=lr, seed=seed), results=[result(values)])
    [line] = [line for line in ranked_lines(table_of(tmp_path)) if line.startswith("  ")]
    assert re.search(r"\+[\d,]+ episodes and \+\d+ seeds \(\d+ each\)", line), line


@pytest.mark.parametrize("width", [80, 300])
def test_names_with_control_characters_are_one_clean_line(make, config, result, tmp_path, width):
    """An escape sequence would colour the terminal, a newline would break a row in two."""
    named = "a \x1b[31mred\ntwo\tlines \u202e"
    for lr, name in ((0.1, named), (0.2, "plain")):
        make({**config(lr=lr), "name": name}, results=[result(FIGURES - lr, dataset=named)])
    make({**config(lr=0.3), "name": named}, state="failed", reason="it \x1b[2J\nbroke")
    plain = plain_of(tmp_path, width=width)
    assert all(line.isprintable() for line in plain.splitlines())
    assert "a \\x1b[31mred two lines \\u202e" in " ".join(plain.split())
    assert "it \\x1b[2J broke" in " ".join(plain.split())


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_the_narrowest_terminal_gets_every_figure(make, config, result, tmp_path, width):
    for k in range(2):
        many = {f"a_rather_long_setting_{n}": n + k for n in range(4)}
        make(config(**many), results=[result(FIGURES[: 50 - k] - k / 9)])
    lines = plain_of(tmp_path, width=width).splitlines()
    told = "".join("".join(lines).split())  # a long name is broken where it has to be
    for word in ("a_rather_long_setting_3=4", f"{100 * FIGURES.mean():.2f}±", "thetasksthatbothanswered"):
        assert word in told
    notes = [line for line in lines if line.startswith(("differences", "±:"))]
    assert len(notes) == 2
    assert all(len(line) <= width for line in notes)


def test_eighty_columns_hold_an_experiment_with_seeds_and_repeats(make, config, result, tmp_path):
    for lr, seeds in ((0.1, (0, 1, 2, 2, 2)), (0.2, (0,))):
        for seed in seeds:
            noise = np.random.default_rng(seed).uniform(-0.2, 0.2, 50)
            make(config(lr=lr, seed=seed), results=[result((FIGURES - lr + noise)[: 50 - 10 * seed])])
    lines = plain_of(tmp_path, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    told = " ".join(lines)
    for name in ("accuracy", "difference", "p (Holm)", "tasks", "needed"):
        assert name in told


def test_eighty_columns_hold_runs_without_results(make, config, tmp_path):
    for seed in (3, 4):
        reason = "stopped, with a reason that fills the line that it stands in to the last column"
        make(config(seed=seed), state="interrupted", step=2000, updated="2026-01-01T00:00:00+0000", reason=reason)
    lines = plain_of(tmp_path, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    [row] = [number for number, line in enumerate(lines) if "000001-abcdef" in line]
    assert lines[row].split()[1:] == ["interrupted", "4", "2000"]
    assert any("updated: 2026-01-01T00:00:00+0000" in line for line in lines[row + 1 :])


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_terminal_holds_a_forced_ranking(make, config, result, tmp_path, width):
    for lr, figures in ((0.1, FIGURES), (0.3, FIGURES - 0.1)):
        make(config(lr=lr), results=[result(figures, dataset="omniglot", split="alphabets")])
    make(config(lr=0.2), results=[result(FIGURES[:20] - 0.3, split="images", split_hash="def")])
    lines = plain_of(tmp_path, width=width, forced=True).splitlines()[1:]  # below the heading
    assert max(map(len, lines)) <= width
    [row] = [number for number, line in enumerate(lines) if "000002-abcdef" in line]
    beneath = " ".join(lines[row + 1 : row + 4])
    assert "test: squares images 5way1shot, inductive" in beneath
    assert ("difference: -" in beneath) == (width == 60)


@pytest.mark.parametrize("width", [80, 120])
def test_a_narrow_terminal_tells_beneath_a_row_what_does_not_fit_beside_it(make, config, result, tmp_path, width):
    random = np.random.default_rng(0)
    for shift in (0.0, 0.01):
        settings = config(momentum=shift, weight_decay=0.5 + shift, schedule_with_a_long_name=f"constant{shift}")
        make(settings, results=[result(random.uniform(0.4, 0.6, 50) + shift)])
    wide, narrow = plain_of(tmp_path, width=400), plain_of(tmp_path, width=width)
    lines = narrow.splitlines()
    assert max(map(len, lines)) <= width < max(map(len, wide.splitlines()))
    [row] = [number for number, line in enumerate(lines) if line.startswith("  2026")]
    beneath = [line for line in lines[row + 1 : row + 5] if line.startswith("    ")]
    assert any("schedule_with_a_long_name=constant" in line for line in beneath)
    assert any("needed: +" in line for line in beneath) == (width == 80)
    words = {word.rstrip(":") for word in wide.replace("─", "").split()}
    assert words - {word.rstrip(":") for word in narrow.split()} <= {"settings,", "then", "what", "differs"}
