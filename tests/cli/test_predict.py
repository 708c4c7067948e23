"""fsl predict: pictures of a user against an episode made by hand."""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import fewshot_runner
from fewshot_runner.data.batch import Episode
from fewshot_runner.runs import RunFolder


@pytest.fixture
def pictures(tmp_path):
    """A support folder of unequal shots, and pictures to classify: glyphs, drawn here as files."""
    from fewshot_runner.data.sources.glyphs import Glyphs

    source = Glyphs(alphabets=6, characters=8, drawers=8)
    for name, character, shots in (("one", 0, 1), ("three", 9, 3), ("two", 25, 2)):
        folder = tmp_path / "support" / name
        folder.mkdir(parents=True)
        for shot in range(shots):
            source.image(8 * character + shot).save(folder / f"{shot}.png")
    (tmp_path / "queries").mkdir()
    for number, character in enumerate((0, 9, 25)):
        source.image(8 * character + 7).save(tmp_path / "queries" / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("method", ["prototypical", "siamese", "pixels"])
def test_predictions_agree_with_an_episode_made_by_hand(fsl, trained, pictures, method):
    run = trained(method)
    answer = fsl("predict", run, pictures / "queries", "--support", pictures / "support", "--json")
    assert answer.code == 0, answer.err

    def seen(path: Path) -> torch.Tensor:
        """White paper to 0, ink to 1, area averages at 16 x 16."""
        paper = Image.open(path).convert("L")
        small = paper.resize((16, 16), Image.Resampling.BOX if paper.width % 16 == 0 else Image.Resampling.LANCZOS)
        return 1 - torch.from_numpy(np.array(small)).float()[None] / 255

    from fewshot_runner.data.decode import decode, fit

    def ingested(path: Path) -> torch.Tensor:
        return 1 - torch.from_numpy(fit(decode(path, str(path)), 16, 1)).float() / 255

    names = ["one", "three", "two"]
    files = [
        (label, file) for label, name in enumerate(names) for file in sorted((pictures / "support" / name).iterdir())
    ]
    queries = sorted((pictures / "queries").iterdir())
    assert (ingested(queries[0]) - seen(queries[0])).abs().mean() < 0.05  # ink is 1 and paper 0, as in training
    episode = Episode(
        support=torch.stack([ingested(file) for _, file in files])[None],
        support_labels=torch.tensor([[label for label, _ in files]]),
        query=torch.stack([ingested(file) for file in queries])[None],
        query_labels=torch.zeros(1, 3, dtype=torch.long),
        n_way=3,
    )
    with torch.no_grad():
        expected = fewshot_runner.load(run).classify(episode)[0].softmax(-1)
    predictions = json.loads(answer.out)
    assert [prediction["image"] for prediction in predictions] == [str(file) for file in queries]
    for prediction, scores in zip(predictions, expected, strict=True):
        ranking = prediction["ranking"]
        assert [entry["class"] for entry in ranking] == [names[n] for n in scores.argsort(descending=True)]
        for entry in ranking:
            assert entry["score"] == pytest.approx(float(scores[names.index(entry["class"])]), abs=1e-5)


def test_predict_normalises_as_the_best_step_was_chosen(fsl, copied, pictures):
    run = RunFolder(copied("maml"))
    config = run.read_config()
    assert config["eval"]["bn_mode"] == "support"
    words = ("predict", run.path, pictures / "queries", "--support", pictures / "support", "--json")
    chosen = json.loads(fsl(*words).out)
    config["eval"]["bn_mode"] = "transductive"  # of what it was allowed to see, the support is left
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    assert json.loads(fsl(*words).out) == chosen
    config["eval"]["bn_mode"] = "running"
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    assert json.loads(fsl(*words).out) != chosen


def test_predict_in_its_three_forms(fsl, trained, pictures):
    words = [trained(), pictures / "queries" / "0.png", "--support", pictures / "support"]
    one = json.loads(fsl("predict", *words, "--json", "--top", 1).out)
    assert [len(prediction["ranking"]) for prediction in one] == [1]
    rows = list(csv.DictReader(io.StringIO(fsl("predict", *words, "--csv", "--top", 9).out)))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert sum(float(row["score"]) for row in rows) == pytest.approx(1, abs=1e-5)
    assert rows[0]["class"] == one[0]["ranking"][0]["class"]
    table = fsl("predict", *words).out
    assert rows[0]["class"] in table
    assert "%" in table


@pytest.mark.usefixtures("any_bytes_are_names")
def test_names_that_are_no_text_are_spelt_out(fsl, trained, pictures):
    own = os.fsdecode(b"caf\xe9")
    (pictures / "support" / "one").rename(pictures / "support" / own)
    picture = (pictures / "queries" / "0.png").rename(pictures / "queries" / f"{own}.png")
    for form in ([], ["--json"], ["--csv"]):
        answer = fsl("predict", trained(), picture, "--support", pictures / "support", *form)
        assert answer.code == 0, answer.err
        assert r"caf\udce9.png" in answer.out.encode().decode()
    rows = list(csv.DictReader(io.StringIO(answer.out)))
    assert {row["class"] for row in rows} == {r"caf\udce9", "three", "two"}
    assert {row["image"] for row in rows} == {rf"{pictures}/queries/caf\udce9.png"}


def test_predict_is_not_swayed_by_the_other_pictures(fsl, trained, pictures):
    files = sorted((pictures / "queries").iterdir())
    words = ["--support", pictures / "support", "--json"]
    together = json.loads(fsl("predict", trained(), *files, *words).out)
    alone = [json.loads(fsl("predict", trained(), file, *words).out)[0] for file in files[:2]]
    for first, second in zip(together, alone, strict=False):
        assert [e["class"] for e in first["ranking"]] == [e["class"] for e in second["ranking"]]
        assert [e["score"] for e in first["ranking"]] == pytest.approx(
            [e["score"] for e in second["ranking"]], abs=1e-5
        )


@pytest.mark.parametrize("method", ["prototypical", "maml"])
def test_pictures_are_taken_some_at_a_time_to_the_same_end(fsl, trained, pictures, monkeypatch, method):
    words = ["predict", trained(method), pictures / "queries", "--support", pictures / "support", "--json"]
    at_once = json.loads(fsl(*words).out)
    monkeypatch.setattr("fewshot_runner.engine.predict.PIXELS_AT_ONCE", 2 * 16 * 16)
    by_twos = json.loads(fsl(*words).out)
    assert [each["image"] for each in by_twos] == [each["image"] for each in at_once]
    for one, other in zip(at_once, by_twos, strict=True):
        assert [e["class"] for e in one["ranking"]] == [e["class"] for e in other["ranking"]]
        assert [e["score"] for e in one["ranking"]] == pytest.approx([e["score"] for e in other["ranking"]], abs=1e-5)


def test_pictures_that_cannot_be_read_are_named_and_the_others_answered(fsl, refused, trained, pictures, monkeypatch):
    monkeypatch.setattr("fewshot_runner.engine.predict.PIXELS_AT_ONCE", 2 * 16 * 16)
    words = ("predict", trained(), pictures / "queries", "--support", pictures / "support", "--json")
    expected = json.loads(fsl(*words).out)
    for number in ("00", *range(4, 11)):
        (pictures / "queries" / f"{number}.png").write_bytes(b"no picture")
    answer = fsl(*words)
    assert answer.code == 2
    assert json.loads(answer.out) == expected
    assert all(f"/{number}.png" in answer.err for number in ("00", 10, 4, 5, 6, 7))
    assert "and 2 more" in answer.err
    for number in range(3):
        (pictures / "queries" / f"{number}.png").unlink()
    assert "and 2 more" in refused(*words)


def test_pictures_in_formats_that_are_not_read_are_named(fsl, trained, pictures):
    (pictures / "queries" / "raw.NEF").write_bytes(b"II*")
    (pictures / "support" / "one" / "raw.CR2").write_bytes(b"II*")
    words = ["predict", trained(), pictures / "queries", "--support", pictures / "support", "--json"]
    answer = fsl(*words)
    assert answer.code == 0
    assert len(json.loads(answer.out)) == 3
    assert f"{pictures}/queries: left out: pictures in formats that are not read (1 .nef): save as JPEG" in answer.err
    said = fsl("predict", trained(), pictures / "queries" / "raw.NEF", *words[3:]).err
    assert "raw.NEF: .nef pictures are not read; save as JPEG" in said
    assert "--support: left out: pictures in formats that are not read (1 .cr2): save as JPEG" in answer.err


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ("no support", ["--support=", "nowhere does not exist"]),
        ("one class", ["two classes"]),
        ("no picture", ["none.png", "no such picture"]),
        ("no pictures in a folder", ["no picture"]),
        ("a broken picture", ["broken.png"]),
        ("a broken example", ["broken.png"]),
        ("top 0", ["--top=0"]),
    ],
)
def test_predict_refuses_by_name(refused, trained, pictures, change, names):
    support, picture, more = pictures / "support", pictures / "queries" / "0.png", []
    if change == "no support":
        support = pictures / "nowhere"
    elif change == "one class":
        shutil.rmtree(support / "one")
        shutil.rmtree(support / "two")
    elif change == "no picture":
        picture = pictures / "none.png"
    elif change == "no pictures in a folder":
        picture = pictures / "void"
        picture.mkdir()
    elif change == "a broken picture":
        picture = pictures / "broken.png"
        picture.write_bytes(b"\x89PNG and no more")
    elif change == "a broken example":
        (support / "one" / "broken.png").write_bytes(b"\x89PNG and no more")
    else:
        more = ["--top", "0"]
    said = refused("predict", trained(), picture, "--support", support, *more)
    assert [name for name in names if name not in said] == []


def test_a_head_still_knows_its_classes_where_the_best_checkpoint_is_damaged(fsl, copied, pictures):
    """The last state of training stands in for it, which here is the best one."""
    run = RunFolder(copied("finetune"))
    words = ["predict", run.path, pictures / "queries", "--json"]
    before = fsl(*words)
    assert before.code == 0, before.err
    run.checkpoints.joinpath("best.pt").write_bytes(b"")
    after = fsl(*words)
    assert after.code == 0, after.err
    assert "best.pt" in after.err
    names = [{answer["class"] for answer in entry["ranking"]} for entry in json.loads(after.out)]
    assert names == [{answer["class"] for answer in entry["ranking"]} for entry in json.loads(before.out)]


def test_the_python_api_predicts_as_the_program_does(fsl, trained, pictures):
    run, examples = trained(), pictures / "support"
    words = ["--support", examples, "--json", "--top", 2]
    predictions = fewshot_runner.predict(run, [pictures / "queries"], support=examples, top=2)
    said = json.loads(fsl("predict", run, pictures / "queries", *words).out)
    assert [json.loads(json.dumps(prediction.as_dict())) for prediction in predictions] == said
    assert [len(prediction.ranking) for prediction in predictions] == [2, 2, 2]
    assert fewshot_runner.predict(run, str(pictures / "queries"), support=examples, top=2) == predictions
    with pytest.raises(ValueError, match="give --support DIR"):
        fewshot_runner.predict(run, [pictures / "queries"])
    (pictures / "queries" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.png"):
        fewshot_runner.predict(run, [str(pictures / "queries")], support=str(examples))
