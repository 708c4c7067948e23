"""The recipe for whales on a folder as Kaggle packs it, where nobody has labelled the pictures of the test."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.compose import compose

SMALL = (
    "model=pixels", "~model.frozen", "method.learner.embedding=8", "dataset.image_size=16", "hardware=cpu",
    "hardware.threads=1", "trainer.max_steps=4", "trainer.val_every=2", "method.sampler.n_classes=3",
    "method.sampler.n_images=2",
)  # fmt: skip


@pytest.fixture
def kaggle(tmp_path):
    """Five whales of four photographs, three photographs of new ones, and four that are to be named."""
    folder = tmp_path / "humpback-whale-identification"
    shades = np.random.default_rng(0)
    rows = [("Image", "Id")]
    for part, names in (("train", [f"a{n}.jpg" for n in range(23)]), ("test", ["d.jpg", "b.jpg", "c.jpg", "a.jpg"])):
        (folder / part).mkdir(parents=True)
        for name in names:
            Image.fromarray(shades.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / part / name)
        if part == "train":
            rows += [(name, f"w_{n % 5}" if n < 20 else "new_whale") for n, name in enumerate(names)]
    (folder / "train.csv").write_text("\n".join(",".join(row) for row in rows))
    return tmp_path


def test_pictures_that_nobody_has_labelled_are_looked_for_among_all_whales_that_are_known(kaggle):
    """Those of validation, which give the figures, among the training images alone."""
    made = Builder(compose(["experiment=whale_triplet", "dataset=whales", *SMALL, f"dataset.root={kaggle}"]))
    [protocol] = made.tests().values()
    of_val, known = ({*protocol.image_names[s.gallery.members]} for s in (protocol.search, protocol.asked))
    assert known == {f"train/a{number}.jpg" for number in range(20)}
    assert of_val == {*made.dataset.split.images["train"]} & known
    assert len(of_val) == 15  # each whale gives one away


@pytest.mark.parametrize("features", [(), ("trainer.cache_features=true", "dataset.augment=null")])
def test_the_recipe_names_pictures_that_nobody_has_labelled(fsl, kaggle, features):
    words = [*SMALL, *features, f"dataset.root={kaggle}", f"output_dir={kaggle}/outputs"]
    answer = fsl("train", "experiment=whale_triplet", "dataset=whales", *words)
    assert answer.code == 0, answer.err
    with open(answer.run / "submission.csv") as file:
        lines = list(csv.DictReader(file))
    assert [line["Image"] for line in lines] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    for line in lines:
        guesses = line["Id"].split()
        assert len(guesses) == len(set(guesses)) == 5
        assert set(guesses) <= {"new_whale", *(f"w_{n}" for n in range(5))}


@pytest.fixture
def known(kaggle) -> Path:
    """The photographs of whales that have a name, in a sub-folder a whale."""
    for number in range(20):
        folder = kaggle / "known" / f"w_{number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(kaggle / f"humpback-whale-identification/train/a{number}.jpg", folder)
    return kaggle / "known"


def test_predict_ranks_whales_and_the_new_one_as_the_submission_does(fsl, kaggle, known):
    words = [*SMALL, f"dataset.root={kaggle}", f"output_dir={kaggle}/outputs"]
    run = fsl("train", "experiment=whale_triplet", "dataset=whales", *words).run
    with open(run / "submission.csv") as file:
        submitted = {line["Image"]: line["Id"].split() for line in csv.DictReader(file)}
    asked = kaggle / "humpback-whale-identification/test"
    answer = fsl("predict", run, asked, "--support", known, "--top", 9, "--json")
    assert answer.code == 0, answer.err
    ranked = {Path(each["image"]).name: [e["class"] for e in each["ranking"]] for each in json.loads(answer.out)}
    assert {name: classes[:5] for name, classes in ranked.items()} == submitted
    assert {len(classes) for classes in ranked.values()} == {6}
    places = {classes.index("new_whale") for classes in ranked.values()}
    assert places - {5}, "it never stands before a whale, so this shows nothing"


def test_predict_refuses_examples_of_no_whale_and_a_run_that_was_not_tested(fsl, refused, kaggle, known):
    words = [*SMALL, f"dataset.root={kaggle}", f"output_dir={kaggle}/outputs"]
    run = fsl("train", "experiment=whale_triplet", "dataset=whales", *words).run
    picture = kaggle / "humpback-whale-identification/test/a.jpg"
    shutil.copytree(known / "w_0", known / "new_whale")
    said = refused("predict", run, picture, "--support", known)
    assert "'new_whale'" in said
    assert "sub-folder" in said
    shutil.rmtree(known / "new_whale")
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, "results": []}))
    assert f"fsl resume {run}" in refused("predict", run, picture, "--support", known)


def test_a_figure_of_validation_is_called_so_and_not_set_beside_a_published_one(fsl, kaggle):
    words = [*SMALL, f"dataset.root={kaggle}", f"output_dir={kaggle}/outputs"]
    answer = fsl("train", "experiment=whale_triplet", "dataset=whales", *words, "published.dataset=[whales]")
    assert answer.code == 0, answer.err
    assert "on validation" in answer.out
    assert "published" not in answer.out


def test_a_run_is_not_tested_on_its_own_pictures_where_the_test_has_no_labels(fsl, refused, kaggle, tmp_path):
    """What is measured there are the known pictures that the division keeps for validation."""
    words = [*SMALL, f"dataset.root={kaggle}", f"output_dir={tmp_path}/outputs"]
    run = fsl("train", "experiment=whale_triplet", "dataset=whales", *words).run
    other = tmp_path / "other"
    shutil.copytree(kaggle / "humpback-whale-identification", other / "humpback-whale-identification")
    Image.new("RGB", (24, 20)).save(other / "humpback-whale-identification/test/e.jpg")
    said = refused("eval", f"run={run}", f"dataset.root={other}")
    assert "test pictures were used in training this run" in said


def test_answers_about_other_pictures_do_not_take_the_place_of_the_runs_own(fsl, kaggle, tmp_path):
    words = [*SMALL, f"dataset.root={kaggle}", f"output_dir={tmp_path}/outputs"]
    run = fsl("train", "experiment=whale_triplet", "dataset=whales", *words).run
    own = (run / "submission.csv").read_text()
    other = tmp_path / "other" / "humpback-whale-identification"
    shutil.copytree(kaggle / "humpback-whale-identification", other)
    for number, picture in enumerate(sorted(other.glob("*/*.jpg"))):
        Image.new("RGB", (24, 20), (9 * number, 0, 255)).save(picture)
    for _ in range(2):
        answer = fsl("eval", f"run={run}", f"dataset.root={other.parent}")
        assert answer.code == 0, answer.err
        assert (run / "submission.csv").read_text() == own
        [further] = run.glob("submission-*.csv")
    assert fsl("eval", f"run={run}").code == 0
    assert len(list(run.glob("submission*.csv"))) == 2
    assert further.read_text().count("\n") == own.count("\n")
