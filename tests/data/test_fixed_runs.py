"""Omniglot's fixed trials: Lake's 20 runs, and the task of a siamese tutorial."""

import io
import re
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import KDTree
from tampering import damage_member, rewrite

from fewshot_runner.cli.targets import make
from fewshot_runner.data.sources.omniglot import LakeRuns, TutorialRun
from fewshot_runner.errors import Absent, UserError


@pytest.fixture(scope="module")
def runs_archive(omniglot_data) -> Path:
    path = omniglot_data / "omniglot-py" / "one-shot-classification" / "all_runs.zip"
    if not path.is_file():
        pytest.skip(f"needs Lake's fixed runs, and {path} is absent; set FSL_DATA")
    return path


@pytest.fixture(scope="module")
def lake_runs(omniglot_data, runs_archive) -> LakeRuns:
    return LakeRuns(root=str(omniglot_data), download=False)


def test_fixed_runs_are_400_trials_with_the_labels_of_their_files(lake_runs, runs_archive):
    items, runs = lake_runs.items(), lake_runs.runs()
    assert len(items) == 800
    assert len(runs) == 20
    with zipfile.ZipFile(runs_archive) as archive:
        for number, run in enumerate(runs, start=1):
            folder = f"run{number:02d}"
            support = [items[position].name for position in run.support]
            query = [items[position].name for position in run.query]
            assert sorted(support) == [f"{folder}/training/class{n:02d}.png" for n in range(1, 21)]
            assert sorted(query) == [f"{folder}/test/item{n:02d}.png" for n in range(1, 21)]
            assert sorted(run.support_labels) == list(range(20))
            answers = archive.read(f"{folder}/class_labels.txt").decode()
            pairs = re.findall(r"(\S+item\d\d.png) (\S+class\d\d.png)", answers)
            assert len(pairs) == 20
            named = dict(zip(run.support_labels, support, strict=True))
            assert {(name, named[label]) for name, label in zip(query, run.query_labels, strict=True)} == set(pairs)
            for position in (*run.support, *run.query):
                assert items[position].group == folder
            for position, label in zip(run.query, run.query_labels, strict=True):
                assert items[position].class_name == named[label]


def test_fixed_runs_show_the_images_of_their_names(lake_runs, runs_archive):
    with zipfile.ZipFile(runs_archive) as archive:
        for index in (0, 399, 799):
            expected = np.asarray(Image.open(io.BytesIO(archive.read(lake_runs.items()[index].name))))
            assert np.array_equal(np.asarray(lake_runs.image(index)), expected * np.uint8(255))


def strokes(image: Image.Image) -> KDTree:
    """(points, 2) places of ink, relative to their mean."""
    points = np.argwhere(np.asarray(image) == 0).astype(float)
    return KDTree(points - points.mean(axis=0))


def modified_hausdorff(one: KDTree, other: KDTree) -> float:
    """Dubuisson and Jain (1994): the greater of the mean distances from one's points to the nearest of the other's."""
    return max(one.query(other.data)[0].mean(), other.query(one.data)[0].mean())


@pytest.mark.slow
def test_lakes_own_baseline_errs_on_the_fixed_runs_as_published(lake_runs):
    """demo_classification.py of brendenlake/omniglot: the modified Hausdorff distance errs on 38.8 % of the trials."""
    errors = []
    for run in lake_runs.runs():
        support = [strokes(lake_runs.image(position)) for position in run.support]
        for position, label in zip(run.query, run.query_labels, strict=True):
            query = strokes(lake_runs.image(position))
            distances = [modified_hausdorff(query, known) for known in support]
            errors.append(run.support_labels[int(np.argmin(distances))] != label)
    assert len(errors) == 400
    assert 100 * np.mean(errors) == pytest.approx(38.8, abs=0.06)


def test_trap_09_fixed_runs_belong_to_lake_and_share_drawings_with_the_training_list_of_vinyals(
    real, lake_runs, vinyals_lists, omniglot_data
):
    """Found by their pixels, as the runs name no characters."""
    assert lake_runs.of_splits == ("lake", "koch")
    support = {position for run in lake_runs.runs() for position in run.support}
    drawn = {lake_runs.image(position).convert("1").tobytes() for position in support}
    splits = {name: real.split(name) for name in ("lake", "vinyals")}
    part_of = {name: {c: part for part, cs in split.classes.items() for c in cs} for name, split in splits.items()}
    found = {"lake": Counter(), "vinyals": Counter()}
    with zipfile.ZipFile(omniglot_data / "omniglot-py" / "images_evaluation.zip") as archive:
        for item in real.items()[19_280:]:
            if Image.open(io.BytesIO(archive.read(item.name))).tobytes() in drawn:
                for name, parts in part_of.items():
                    found[name][parts[item.class_name]] += 1
    assert set(found["lake"]) == {"test"}
    assert found["lake"]["test"] >= 380
    assert found["vinyals"]["train"] > 0
    split = lake_runs.split("lake")
    assert not split.classes["train"]
    assert len(split.classes["test"]) == 800


def test_damaged_or_absent_runs_are_named(runs_archive, tmp_path):
    place = tmp_path / "omniglot-py" / "one-shot-classification" / "all_runs.zip"
    described = {"_target_": "fewshot_runner.data.sources.omniglot.LakeRuns", "root": str(tmp_path), "download": False}
    with pytest.raises(Absent, match=f"^dataset.runs.lake.download=false: {place} is missing; set it to true, or "):
        make(described, "dataset.runs.lake")
    place.parent.mkdir(parents=True)
    place.write_bytes(b"<html>")
    with pytest.raises(UserError, match=f"{place}: not a readable zip file .*; delete it and let fsl"):
        LakeRuns(root=str(tmp_path), download=False)
    shutil.copyfile(runs_archive, place)
    rewrite(place, without="run07/test/item13")
    with pytest.raises(UserError, match=f"{place}: 799 images where 800 belong; delete it and let fsl"):
        LakeRuns(root=str(tmp_path), download=False)


@pytest.mark.parametrize(
    "labels",
    [b"", b"run03/test/item01.png\n" * 20, b"run03/test/item01.png run03/training/class99.png\n" * 20, b"\xff"],
)
def test_damaged_labels_of_runs_are_named(runs_archive, tmp_path, labels):
    place = tmp_path / "omniglot-py" / "one-shot-classification" / "all_runs.zip"
    place.parent.mkdir(parents=True)
    shutil.copyfile(runs_archive, place)
    rewrite(place, without="run03/class_labels", add={"run03/class_labels.txt": labels})
    with pytest.raises(UserError, match=f"{place}: run03/class_labels.txt does not name 20 pairs"):
        LakeRuns(root=str(tmp_path), download=False).runs()


def test_a_damaged_drawing_of_the_runs_is_named(runs_archive, tmp_path):
    place = tmp_path / "omniglot-py" / "one-shot-classification" / "all_runs.zip"
    place.parent.mkdir(parents=True)
    shutil.copyfile(runs_archive, place)
    damage_member(place, "run02/test/item05.png")
    source = LakeRuns(root=str(tmp_path), download=False)
    index = [item.name for item in source.items()].index("run02/test/item05.png")
    with pytest.raises(UserError, match=f"{place}: run02/test/item05.png is damaged .*; delete it"):
        source.image(index)
    shutil.copyfile(runs_archive, place)
    rewrite(place, without="run04/class_labels")
    with pytest.raises(UserError, match=r"run04/class_labels.txt: all_runs.zip has no such file; .*delete it"):
        LakeRuns(root=str(tmp_path), download=False).runs()


def test_the_tutorials_task_is_the_first_ten_characters_by_five_drawers_and_fifteen(omniglot_data, real):
    """Against the archive's own names: characters in their order, and drawers by the number that ends a name."""
    source = TutorialRun(root=str(omniglot_data), download=False)
    with zipfile.ZipFile(omniglot_data / "omniglot-py" / "images_evaluation.zip") as archive:
        drawings = sorted(name for name in archive.namelist() if name.endswith(".png"))
    characters = sorted({name.rpartition("/")[0] for name in drawings})[:10]
    assert {name.split("/")[1] for name in characters} == {"Angelic"}
    (run,) = source.runs()
    names = [item.name for item in source.items()]
    assert len(names) == len(set(names)) == 200
    assert (len(run.support), len(run.query)) == (50, 150)
    for positions, labels, drawers in (
        (run.support, run.support_labels, range(1, 6)),
        (run.query, run.query_labels, range(6, 21)),
    ):
        seen = [(characters[label], names[position]) for position, label in zip(positions, labels, strict=True)]
        expected = {
            (character, name)
            for character in characters
            for name in drawings
            if name.startswith(f"{character}/") and int(re.search(r"_(\d+)\.png", name)[1]) in drawers
        }
        assert len(seen) == len(expected)
        assert set(seen) == expected
    assert source.of_splits == ("lake",)
    assert set(source.split("lake").classes["test"]) <= set(real.split("lake").classes["test"])
    for item in source.items():
        assert item.class_name == "/".join(item.name.split("/")[1:3])


def test_the_tutorials_task_shows_the_drawings_of_its_names(omniglot_data):
    source = TutorialRun(root=str(omniglot_data), download=False)
    for index in (0, 57, 199):
        name = source.items()[index].name
        with zipfile.ZipFile(omniglot_data / "omniglot-py" / "images_evaluation.zip") as archive:
            expected = np.asarray(Image.open(io.BytesIO(archive.read(name))))
        assert np.array_equal(np.asarray(source.image(index)), expected * np.uint8(255))


def test_koch_tests_on_the_alphabets_of_the_runs(real, omniglot_data):
    """Told by the pixels: each drawing of the runs is one of a test character."""
    split = real.split("koch")
    alphabets = {part: {name.split("/")[0] for name in names} for part, names in split.classes.items()}
    assert [len(alphabets[part]) for part in ("train", "val", "test")] == [30, 10, 10]
    assert sum(len(names) for names in split.classes.values()) == 964 + 659
    drawn = {real.image(i).tobytes(): item for i, item in enumerate(real.items()) if "evaluation" in item.name}
    runs = LakeRuns(root=str(omniglot_data), download=False)
    shown = {drawn[runs.image(i).tobytes()].class_name for i in range(len(runs.items()))}
    assert shown <= set(split.classes["test"])
    assert {name.split("/")[0] for name in shown} == alphabets["test"]
