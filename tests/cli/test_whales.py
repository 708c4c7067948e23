"""The recipe for whales on a folder as Kaggle packs it, where nobody has labelled the pictures of the test."""

import csv

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
