"""The report page: whole, by itself, and with every text escaped."""

import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from fewshot_runner.report.analysis import VERSION, read_analysis
from fewshot_runner.report.curves import series
from fewshot_runner.report.page import in_order_of_results, page
from fewshot_runner.report.ranking import rank
from fewshot_runner.report.records import find_records

FIGURES = np.random.default_rng(0).choice([0.2, 0.4, 0.6, 0.8, 1.0], 50)
VOID = {"meta", "img"}
NASTY = '<script>alert("1")</script>&amp;'


class Page(HTMLParser):
    """Text, tags and attributes; fails where tags do not close in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(html)
        assert self.open == [], self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def every(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def show(tmp_path):
    def of(**options) -> Page:
        records, skipped = find_records([tmp_path])
        return Page(page(rank(records, **options), records, title="Runs & more", skipped=skipped))

    return of


def png(colour: tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(out, "PNG")
    return out.getvalue()


def analysis_of(**changes) -> dict:
    return {
        "version": VERSION, "step": 7, "test": "5way1shot", "dataset": "squares", "split": "classes",
        "unit": "episodes",
        "classes": [{"name": f"c{k:02d}", "group": "g", "accuracy": k / 20, "ci95": 0.0123, "count": 9}
                    for k in range(15)],
        "groups": [{"name": "warm", "accuracy": 0.625, "ci95": None, "count": 1}],
        "surface": {"ways": [2, 5], "shots": [1, 5], "accuracy": [[0.9, 0.95], [0.8, 0.85]], "seed": 3, "n_query": 2,
                    "ci95": [[0.01, 0.02], [0.03, 0.04]], "episodes": 200, "within_group": False},
        "hardest": [{"number": 17, "accuracy": 0.2, "wrong": 4, "queries": 5, "picture": "episode-17.png", "mistakes": [
            {"truth": "red", "answer": "blue", "count": 3, "picture": "episode-17-mistake-0.png"}]}],
        "missing": ["the moon"], **changes,
    }  # fmt: skip


@pytest.fixture
def analysed(make, result):
    def run(config=None, **changes):
        made = make(config, results=[result(FIGURES)])
        folder = made.path / "analysis"
        folder.mkdir()
        (folder / "analysis.json").write_text(json.dumps(analysis_of(**changes)))
        (folder / "episode-17.png").write_bytes(png((255, 0, 0)))
        return made

    return run


def test_a_page_holds_comparison_settings_curves_and_what_is_missing(make, config, result, show):
    for k, lr in enumerate((0.1, 0.2)):
        run = make(config(lr=lr), results=[result(FIGURES - 0.1 * k)])
        run.metrics.write_text(
            '{"step": 1, "train": {"loss": 2.0, "learning_rate": 0.1}, "wall": {}}\n'
            '{"step": 2, "train": {"loss": 1.0}, "wall": {}}\n{"step": 2, "val": {"accuracy": 0.5}, "wall": {}}\n'
        )
    make(config(lr=0.3), state="failed", reason="loss is nan")
    shown = show()
    assert f"{100 * FIGURES.mean():.2f} ± " in shown.text
    assert "-10.00 ± 0.00" in shown.text
    assert "50 episodes of seed 3" in shown.text
    assert "loss is nan" in shown.text
    assert "3 runs (2 done, 1 failed) of 3 experiments" in shown.text
    assert "method.optimizer.lr" in shown.text
    assert "validation accuracy" in shown.text
    assert "training loss" in shown.text
    assert "learning_rate" not in shown.text
    assert len(shown.every("polyline")) == 2  # the loss of two runs
    assert len(shown.every("circle")) == 2  # and a validation of each
    assert "have not been analysed" in shown.text
    anchors = {attributes.get("id") for _, attributes in shown.tags}
    assert {link["href"] for link in shown.every("a")} <= {f"#{anchor}" for anchor in anchors if anchor}


def test_what_single_results_were_all_measured_over_is_said_once(make, result, show):
    make(results=[result(FIGURES), result(FIGURES[:20], n_shot=5)])
    text = show().text
    assert text.count("split abc") == 1
    assert [text.count(f"{count} episodes of seed 3") for count in (50, 20)] == [1, 1]


def test_a_page_asks_for_nothing(analysed, show):
    analysed()
    shown = show()
    assert not shown.every("script")
    assert not shown.every("link")
    assert all(image["src"].startswith("data:image/png;base64,") for image in shown.every("img"))
    assert all(link["href"].startswith("#") for link in shown.every("a"))
    [policy] = [meta["content"] for meta in shown.every("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")


def test_an_analysis_is_shown_whole(analysed, show):
    analysed()
    shown = show()
    assert "warm" in shown.text
    assert "62.5 %" in shown.text
    assert "the hardest of 15 classes" in shown.text
    assert "c14" in shown.text
    assert [cell["fill-opacity"] for cell in shown.every("rect")] == ["0.493", "0.700", "0.080", "0.287"]
    assert "2-way 5-shot: 95.00 ± 2.00 %" in shown.text
    assert "± 4.0 or less" in shown.text
    assert "episode 17: 4 of 5 queries wrong, 20.0 %" in shown.text
    assert "red, taken for blue, 3 times" in shown.text
    assert "episode-17-mistake-0.png is missing" in shown.text
    assert len(shown.every("img")) == 1
    assert "Not here: the moon." in shown.text
    assert "have not been analysed" not in shown.text


def test_hardest_images_say_what_they_were_taken_for(analysed, show):
    hardest = [
        {
            "number": 1,
            "truth": "cat",
            "answer": "dog",
            "picture": "episode-17.png",
            "score": 0.75,
            "score_of_truth": 0.1,
        },
        {
            "number": 2,
            "truth": "cat",
            "answer": "cat",
            "picture": "episode-17.png",
            "score": 0.5,
            "score_of_truth": 0.5,
        },
    ]
    analysed(unit="images", surface=None, groups=[], hardest=hardest)
    shown = show()
    assert "cat, taken for dog (75 %)" in shown.text
    assert "cat (50 %)" in shown.text
    assert "Ways and shots" not in shown.text


def test_an_analysis_of_other_weights_or_another_version_is_not_shown(analysed, show, tmp_path):
    run = analysed(step=8)
    assert "have not been analysed" in show().text
    [record], _ = find_records([tmp_path])
    assert read_analysis(record) is None
    (run.path / "analysis" / "analysis.json").write_text(json.dumps(analysis_of(version=VERSION + 1)))
    assert read_analysis(record) is None
    (run.path / "analysis" / "analysis.json").write_text("{")
    shown = show()
    assert "analysis.json: cannot be read" in shown.text


def test_pictures_are_looked_for_in_the_run_alone(analysed, show, tmp_path):
    (tmp_path / "secret.png").write_bytes(png((0, 0, 255)))
    analysed(hardest=[{"number": 1, "accuracy": 0.5, "wrong": 1, "queries": 2, "mistakes": [],
                       "picture": "../../../../secret.png"}])  # fmt: skip
    shown = show()
    assert not shown.every("img")


def test_text_of_runs_is_escaped_everywhere(make, config, result, analysed, show):
    nasty = analysis_of()
    nasty["hardest"][0]["mistakes"][0]["truth"] = NASTY
    nasty["classes"][0]["name"] = nasty["groups"][0]["name"] = nasty["missing"][0] = nasty["test"] = NASTY
    analysed({**config(), "name": NASTY}, **nasty)
    make(config(odd=NASTY), state="failed", reason=NASTY, updated=NASTY)
    make(config(lr=NASTY), results=[result(FIGURES, name=NASTY, split=NASTY)])
    shown = show()
    assert not shown.every("script")
    assert shown.text.count(NASTY) > 8


def test_damaged_logs_and_folders_are_named_and_the_rest_is_shown(make, config, result, show):
    make(config(lr=1), results=[result(FIGURES)]).metrics.write_text("{\n\n")
    make(config(lr=2), results=[result(FIGURES)]).status.write_text("[]")
    shown = show()
    assert "metrics.jsonl: cannot be read" in shown.text
    assert "status.json: holds no JSON object" in shown.text


def test_series_take_numbers_alone():
    logged = [
        {"step": 1, "val": {"accuracy": 0.5, "threshold": 3.0}}, {"step": 2, "val": {"accuracy": "x"}, "train": 3},
        {"step": "2", "val": {"accuracy": 0.5}}, [], {"train": {"loss": 1.0}}, {"step": 3, "train": {"loss": 1.0}},
    ]  # fmt: skip
    assert series(logged) == {("val", "accuracy"): [(1, 0.5)], ("train", "loss"): [(3, 1.0)]}


def test_a_page_of_nothing(show):
    assert "There are no results yet." in show().text


def test_a_forced_ranking_is_marked(make, config, result, show):
    make(config(lr=1), results=[result(FIGURES)])
    make(config(lr=2), results=[result(FIGURES, n_way=20)])
    assert "do not measure the same" in show(forced=True).text
    assert "do not measure the same" not in show().text


def test_of_several_seeds_the_one_is_named_that_is_shown(make, config, result, analysed, show):
    make(config(seed=0), results=[result(FIGURES)])
    run = analysed(config(seed=1))
    analysed(config(seed=2), missing=["the sun"])
    shown = show()
    assert f"Of seed 1, squares-siamese/{run.path.name}:" in shown.text
    assert "the moon" in shown.text
    assert "the sun" not in shown.text
    assert "Of seed" not in Page(page([], find_records([run.path])[0], title="")).text


def test_no_setting_takes_the_place_of_the_run_nor_is_it_markup(make, config, result, show):
    runs = [make({**config(), "run": f"<b>{k}</b>"}, results=[result(FIGURES - k / 9)]) for k in range(2)]
    shown = show()
    assert not shown.every("b")
    for run in runs:
        assert run.path.name in shown.text


def test_an_older_run_that_answers_for_its_seed_leads_to_its_experiment(make, config, result, show):
    make(config(), results=[result(FIGURES), result(FIGURES, n_way=20)])
    make(config(), results=[result(FIGURES)])
    make(config(lr=0.2), results=[result(FIGURES), result(FIGURES, n_way=20)])
    links = [attributes["href"] for attributes in show().every("a")]
    assert sorted(link for link in links if link.startswith("#run-")) == ["#run-0", "#run-0", "#run-1", "#run-1"]


def test_an_experiment_has_its_place_by_an_older_run_that_answers_for_its_seed(make, config, result, tmp_path):
    best = make(config(lr=0.1), results=[result(FIGURES)])
    make(config(lr=0.2), results=[result(FIGURES - 0.1)])
    newer = make(config(lr=0.1), results=[result(FIGURES, n_way=20)])
    records, _ = find_records([tmp_path])
    rankings = rank(records)
    assert rankings[0].rows[0].group.records[0].run.path == best.path
    first, second = in_order_of_results(rankings, records)
    assert first.records[0].run.path == newer.path
    assert second.settings["method.optimizer.lr"] == 0.2
