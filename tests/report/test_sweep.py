"""The table of a sweep: at any width it says what was tried, how it ended, and why not."""

import pytest
from rich.cells import cell_len
from rich.console import Console

from fewshot_runner.report.sweep import sweep_table

REASON = (
    "method.sampler.n_images=50, one more than there are: the class 'Alphabet_05/character01' has only 20 images; "
    "give 20 or fewer, or dataset=omniglot"
)
NAMES = ["prototypical", "siamese", "matching_networks_fce", "relation"]
RATES = ["0.1", "0.0031622776601683794", "0.01", "1e-05"]
SWEPT = ["method", "method.optimizer.lr"]


def job_of(number: int, *, n_way: int = 5, of_result: dict | None = None, **fields) -> dict:
    result = {
        "name": f"{n_way}way1shot", "dataset": "omniglot", "split": "lake", "mode": "inductive", "metric": "accuracy",
        "accuracy": 0.9 - number / 100, "ci95": 0.0123, "protocol": "episodes", "n_way": n_way, "episodes": 600,
        "episode_seed": 4, "bn_mode": "running", "unit": "episodes", "tasks_count": 600, **(of_result or {}),
    }  # fmt: skip
    return {
        "number": number, "overrides": [f"method={NAMES[number]}", f"+method.optimizer.lr={RATES[number]}"],
        "state": "done", "run": f"../../omniglot-{NAMES[number]}/20261122-01413{number}-2595ea", "result": result,
        "validation": 0.91, "seconds": 12.3, **fields,
    }  # fmt: skip


def failed(number: int, reason: str = REASON, state: str = "failed") -> dict:
    job = job_of(number, state=state, reason=reason)
    return {key: value for key, value in job.items() if key not in ("result", "validation", "seconds", "run")}


def lines_of(jobs, width: int, swept=SWEPT, title="method-lr-67772a01") -> list[str]:
    """What a terminal of that width shows: rich crops what is wider."""
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        console.print(sweep_table(jobs, swept=swept, title=title, width=width))
    return capture.get().rstrip("\n").splitlines()


def rows_of(lines: list[str], count: int) -> dict[int, str]:
    """The words of every job, with those beneath its row, by its number in the manifest, which counts from 0."""
    rows: dict[int, list[str]] = {}
    for line in lines:
        words = line.split()
        if words and words[0] in map(str, range(1, count + 1)) and not line.startswith("    "):
            rows[int(words[0]) - 1] = []
        if rows:
            rows[list(rows)[-1]].extend(words)
    return {number: " ".join(words) for number, words in rows.items()}


@pytest.mark.parametrize("width", [60, 80, 100, 120, 180, 400])
def test_settings_results_and_reasons_are_told_at_any_width(width):
    lines = lines_of([failed(3), job_of(0), job_of(1), job_of(2)], width)
    assert max(map(cell_len, lines)) <= width
    rows = rows_of(lines, 4)
    assert list(rows) == [0, 1, 2, 3]  # the best first, failures last
    for number, told in rows.items():
        assert NAMES[number] in told.split()
        assert RATES[number] in told.split()
        if number < 3:
            assert f"{90 - number}.00 ± 1.23 %" in told
            assert f"omniglot-{NAMES[number]}/20261122-01413{number}-2595ea" in told.split()
            assert "0.9100" in told.split()
    assert f"failed: {REASON}" in rows[3]


def test_what_is_longer_than_a_line_is_broken_and_not_cut_off():
    lines = lines_of([failed(3), job_of(0), job_of(1)], 36)
    assert max(map(cell_len, lines)) <= 36
    told = "".join("".join(lines).split())
    for number in (0, 1, 3):
        assert f"method:{NAMES[number]}" in told
        assert f"method.optimizer.lr:{RATES[number]}" in told
    assert f"run:omniglot-{NAMES[0]}/20261122-014130-2595ea" in told
    assert f"failed:{''.join(REASON.split())}" in told


def test_a_long_reason_alone_is_told_beneath_its_row():
    lines = lines_of([job_of(0), job_of(1), failed(3)], 140)
    [head] = [line for line in lines if line.startswith("job")]
    assert head.split() == ["job", *SWEPT, "result", "validation", "seconds", "run"]
    [row] = [line for line in lines if NAMES[0] in line]
    assert row.split()[-1] == f"omniglot-{NAMES[0]}/20261122-014130-2595ea"
    assert lines[-1].startswith("    ")
    assert len(rows_of(lines, 4)) == 3


def test_one_test_stands_in_the_title_and_several_have_a_column():
    lines = lines_of([job_of(0), job_of(1)], 180)
    measured = "600 episodes of seed 4, episodes, inductive"
    assert lines[0] == f"method-lr-67772a01  omniglot lake 5way1shot, {measured}"
    assert "test" not in lines[1].split()
    lines = lines_of([job_of(0, n_way=20), job_of(1)], 180)
    assert lines[0] == f"method-lr-67772a01  {measured}"
    assert "test" in lines[1].split()
    assert [line.split()[5] for line in lines[3:5]] == ["20way1shot", "5way1shot"]


def test_trap_04_figures_of_other_modes_of_batch_norm_are_ranked_apart_and_say_so():
    lines = lines_of([job_of(0), job_of(1, of_result={"bn_mode": "support"}), job_of(2)], 400)
    assert lines[0] == "method-lr-67772a01"
    assert [line.split()[0] for line in lines[3:6]] == ["1", "3", "2"]
    told = [line[line.index("omniglot lake") :].partition(" %")[0] for line in lines[3:6]]
    assert told[0] == told[1].replace("88.00", "90.00")
    assert "bn_mode=running" in told[0]
    assert "bn_mode=support" in told[2]
    names = [line[: line.index(")") + 1] for line in told[1:]]
    measured = "600 episodes of seed 4, episodes, inductive"
    assert lines[7:] == [f"{names[0]}: {measured}", f"{names[1]}: {measured}, bn support"]


def test_trap_12_every_figure_stands_with_the_number_and_the_seed_of_its_tasks():
    larger = {"tasks_count": 10_000, "episodes": 10_000}
    lines = lines_of([job_of(0), job_of(1, of_result=larger)], 400)
    assert lines[0] == "method-lr-67772a01  omniglot lake 5way1shot"
    assert [line.split()[0] for line in lines[3:5]] == ["1", "2"]
    assert lines[6:] == [
        "omniglot lake 5way1shot (job 1): 600 episodes of seed 4, episodes, inductive",
        "omniglot lake 5way1shot (job 2): 10,000 episodes of seed 4, episodes, inductive",
    ]
    fixed = {"protocol": "runs", "tasks_count": 20, "unit": "runs", "episodes": None, "episode_seed": None}
    assert "20 fixed runs, runs, inductive" in lines_of([job_of(0, of_result=fixed)], 220)[0]
    probes = {"metric": "map_at_5", "map_at_5": 0.5, "unit": "probes", "tasks_count": 200, "protocol": "retrieval"}
    assert "5way1shot map_at_5, 200 probes of seed 4, retrieval" in lines_of([job_of(0, of_result=probes)], 220)[0]


def test_what_waits_says_so_and_columns_without_anything_are_left_out():
    lines = lines_of([failed(0, None, "pending"), failed(1, "behind\nthe others", "pruned")], 180)
    assert lines[1].split() == ["job", *SWEPT, "state"]
    assert lines[3].split() == ["1", NAMES[0], RATES[0], "pending"]
    assert lines[4].split()[3:] == ["pruned:", "behind"]
    assert lines_of([], 80) == ["method-lr-67772a01"]
    assert lines_of([job_of(0)], 180, ["+method.optimizer.lr"])[3].split()[:2] == ["1", RATES[0]]


@pytest.mark.parametrize("width", [40, 180])
@pytest.mark.parametrize("jobs", [[], [job_of(0), job_of(1)]])
def test_the_name_of_a_folder_is_one_clean_line(jobs, width):
    assert lines_of(jobs, width, title="a\x1b[31m\nb")[0].startswith("a\\x1b[31m b")
