"""From the settings of a test to its protocol: what is added, what is refused, and what is called how."""

import pytest
import torch
from divided_glyphs import asked_by

from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.compose import compose
from fewshot_runner.cli.evaluation_plan import EvaluationPlan
from fewshot_runner.data.classes import ClassTable
from fewshot_runner.engine.features import FeatureViewer
from fewshot_runner.engine.protocols.retrieval import Retrieval
from fewshot_runner.engine.results import merge
from fewshot_runner.errors import UserError
from fewshot_runner.runs import RunFolder


@pytest.fixture
def builder(tiny):
    def make(*overrides: str, method: str = "prototypical", tests: dict | None = None) -> Builder:
        config = compose([*tiny(method), *overrides])
        if tests is not None:
            config["dataset"]["tests"] = tests
        return Builder(config)

    return make


def test_trap_06_a_transductive_figure_stands_beside_that_of_imbalanced_queries(fsl, tiny, tmp_path) -> None:
    answer = fsl("train", *tiny(), "eval.bn_mode=transductive", "episode.n_query=3", "trainer.max_steps=2",
                 f"output_dir={tmp_path}/runs")  # fmt: skip
    assert answer.code == 0, answer.err
    balanced, imbalanced = RunFolder(answer.run).read_summary()["results"]
    assert balanced["name"] == "3way1shot_transductive"
    assert imbalanced["name"] == "3way1shot_transductive_imbalanced"
    assert (balanced["mode"], balanced["imbalance"]) == ("transductive", None)
    assert (imbalanced["mode"], imbalanced["imbalance"], imbalanced["most_queries"]) == ("transductive", 2.0, 7)
    assert {key: balanced[key] for key in ("n_way", "n_shot", "n_query", "episodes", "episode_seed")} == {
        key: imbalanced[key] for key in ("n_way", "n_shot", "n_query", "episodes", "episode_seed")
    }
    assert answer.out.count("3way1shot_transductive") == 2  # both stand in the table


def test_trap_06_every_transductive_test_has_its_imbalanced_one(builder) -> None:
    tests = {"hard": {"n_way": 4}, "known": {"n_way": 5, "bn_mode": "running"}, "own": {"n_way": 4, "imbalance": 5.0}}
    configs = builder("eval.bn_mode=transductive", "episode.n_query=3", tests=tests).tests()
    assert list(configs) == ["3way1shot_transductive", "3way1shot_transductive_imbalanced", "hard", "hard_imbalanced",
                             "known", "own"]  # fmt: skip
    assert [protocol.sampler.imbalance for protocol in configs.values()] == [None, 2.0, None, 2.0, None, 5.0]
    assert list(builder("eval.bn_mode=support").tests()) == ["3way1shot_support"]


def test_trap_06_classes_without_spare_images_are_refused_before_training(refused, tiny) -> None:
    said = refused("train", *tiny(), "eval.bn_mode=transductive")  # 8 drawers: 1 shot, 4 queries, 3 to spare
    for words in ("eval.bn_mode=transductive", "imbalanced", "only 7 images", "lower episode.n_query to 3 or less"):
        assert words in " ".join(said.split())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["eval.imbalance=2"], ["imbalance=2", "n_query=4", "only 7 images", "3 or less"]),
        (["eval.imbalance=0", "episode.n_query=2"], ["eval.imbalance=0"]),
        (["eval.imbalance=2", "eval.protocol=verification"], ["eval.imbalance=2", "verification"]),
        (["eval.pairs=7", "eval.protocol=verification"], ["eval.pairs=7", "even"]),
        (["eval.protocol=verification", "eval.bn_mode=support"], ["eval.bn_mode=support", "running"]),
        (["eval.protocol=verification", "trainer.monitor=loss"], ["trainer.monitor=loss", "accuracy, auc"]),
        (["eval.protocol=closed_set", "dataset.symmetries=none"], ["is a class of the", "dataset.split"]),
        (["eval.protocol=retrieval"], ["dataset.symmetries=dihedral", "none"]),
        (["eval.protocol=retrieval", "dataset.symmetries=none"], ["no image in the gallery"]),
        (["episode.n_shot=all"], ["n_shot=all", "closed_set"]),
        (["trainer.cache_features=true"], ["trainer.cache_features=true", "frozen"]),
        (["dataset.augment=3"], ["dataset.augment=3", "dataset.augment.warp"]),
        (["+method.layers.hed.lr=1"], ["method.layers.hed"]),
        (
            ["+method.momentum._target_=fewshot_runner.engine.schedule.Constant"],
            [
                "method.momentum._target_=fewshot_runner.engine.schedule.Constant: AdamW has no momentum to change; ",
                "method.momentum=null",
                "torch.optim.SGD",
            ],
        ),
    ],
)
def test_what_would_fail_or_flatter_is_refused_before_training(refused, tiny, overrides, words) -> None:
    said = " ".join(refused("train", *tiny(), *overrides, lines=10).split())
    assert [word for word in words if word not in said] == []


@pytest.mark.parametrize(
    ("own", "further", "words"),
    [
        ("episodes", "protocol:closed_set", ["is a class of the test part", "dataset.split=images"]),
        ("episodes", "protocol:retrieval", ["no image in the gallery"]),
        ("episodes", "protocol:verification,bn_mode:support", ["eval.bn_mode=support", "verification"]),
        ("closed_set", "n_shot:5", ["n_shot=5", "only 4 training images"]),
        ("closed_set", "n_shot:all,bn_mode:support", ["eval.bn_mode=support", "number of shots"]),
        ("closed_set", "protocol:retrieval,bn_mode:support", ["eval.bn_mode=support", "retrieval"]),
    ],
)
def test_what_a_test_alone_would_fail_at_is_refused_before_training(refused, tiny, own, further, words) -> None:
    """Validation, which is another protocol than the test or has other options, can be held."""
    overrides = ["dataset.symmetries=none", *asked_by(own), f"dataset.tests={{further:{{{further}}}}}"]
    said = " ".join(refused("train", *tiny(), *overrides, lines=10).split())
    assert [word for word in words if word not in said] == []


def test_a_test_of_the_data_set_may_not_hide_the_runs_own(builder) -> None:
    with pytest.raises(UserError, match=r"dataset\.tests\.3way1shot"):
        builder(tests={"3way1shot": {"n_query": 2}}).tests()
    assert list(builder(tests={"3way1shot": {"n_query": 4, "split": "alphabets"}}).tests()) == ["3way1shot"]


@pytest.mark.parametrize(
    ("overrides", "further", "in_vain"),
    [
        (("episode.n_way=4", "episode.n_query=3", "eval.episodes=9", "eval.seed=1"), {}, []),
        (("eval.pairs=40",), {}, ["eval.pairs=40"]),
        (("eval.pairs=40",), {"same": {"protocol": "verification"}}, []),
        (("eval.pairs=40",), {"same": {"protocol": "verification", "pairs": 60}}, ["eval.pairs=40"]),
        (("eval.runs=null", "eval.bn_mode=running", "seed=3", "episode.within_group=true"), {}, []),
    ],
)
def test_a_setting_that_no_test_uses_is_told_before_training(builder, overrides, further, in_vain) -> None:
    remarks = builder(*overrides, tests=further).experiment(overrides).remarks
    assert [remark.partition(": ")[0] for remark in remarks] == in_vain


def test_the_shape_of_validation_is_told_where_the_test_is_of_fixed_runs(builder) -> None:
    overrides = [*asked_by("runs"), "episode.n_way=4", "episode.n_query=2", "episode.within_group=true"]
    experiment = builder(*overrides).experiment(overrides)
    [remark] = experiment.remarks
    drawn = experiment.validation.describe()
    assert (drawn["protocol"], drawn["n_way"], drawn["n_query"], drawn["within_group"]) == ("episodes", 4, 2, True)
    for said in ("episode.n_way=4", "episode.n_shot=1", "episode.n_query=2", "episode.within_group=true"):
        assert said in remark
    assert not builder(*asked_by("episodes")).experiment().remarks


@pytest.mark.parametrize(
    ("shape", "shown"), [(["episode.n_way=3"], 3 * 5), (["episode.n_way=2", "episode.n_query=7"], 2 * 8)]
)
def test_of_episodes_from_few_images_it_is_said_of_what_their_interval_tells(builder, shape, shown) -> None:
    """An alphabet of eight characters by eight drawers: 64 images, each a thousand times in 64,000 / `shown`."""
    enough = 64_000 // shown
    assert builder(*shape, f"eval.episodes={enough}").experiment().remarks == []
    more = {"further": {"episodes": 64_000, "n_query": 1}, "few": {"episodes": 20}}
    [remark] = builder(*shape, f"eval.episodes={enough + 1}", tests=more).experiment().remarks
    named, _, said = remark.partition(": ")
    assert named == f"{shape[0][-1]}way1shot, further"
    assert "64 images of 8 classes" in said
    assert "1,000 times" in said


def names_in(protocol: Retrieval, table: ClassTable) -> set[str]:
    return {*protocol.image_names[table.members]}


def test_trap_07_verification_fits_its_threshold_on_validation(builder) -> None:
    made = builder("eval.protocol=verification", "eval.pairs=20")
    [protocol] = made.tests().values()
    asked, fitted = ({*pairs.images.flatten().tolist()} for pairs in (protocol.pairs, protocol.fitting))
    assert fitted <= {*made.dataset.table("val").members.tolist()}
    assert asked <= {*made.dataset.table("test").members.tolist()}


def test_a_test_of_retrieval_searches_the_images_of_training_and_of_validation(pictures) -> None:
    made = Builder(compose([*pictures(range(5)), "dataset.split=images", "eval.protocol=retrieval"]))
    images = made.dataset.split.images
    [protocol] = made.tests().values()
    assert names_in(protocol, protocol.search.gallery) == {*images["train"], *images["val"]}
    assert names_in(protocol, protocol.fitted_on.gallery) == {*images["train"]}


def test_nothing_to_train_is_refused_unless_no_step_is_to_be_made(builder) -> None:
    for steps in (3, 0):
        made = builder(f"trainer.max_steps={steps}", method="triplet")
        made.method = frozen(made.method)
        if steps:
            with pytest.raises(UserError, match="nothing to train"):
                made.experiment()
        else:
            assert made.experiment().optimizer is None


def test_options_of_layers_and_rates_of_a_step(tiny) -> None:
    """Koch et al.'s: 0.1 x 0.99 ** epoch, momentum from 0.5 over a hundred epochs, heavier L2 on the head."""
    schedule = "fewshot_runner.engine.schedule"
    config = compose(tiny("siamese"))
    config["method"] |= {
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 2e-4},
        "schedule": {"_target_": f"{schedule}.Exponential", "factor": 0.99, "every": 234},
        "momentum": {"_target_": f"{schedule}.LinearFrom", "start": 0.5, "steps": 23400},
        "layers": {"head": {"weight_decay": 1e-3, "lr": 0.2}, "head.threshold": {"lr": 0.5}},
    }
    experiment = Builder(config).experiment()
    named = {id(parameter): name for name, parameter in experiment.method.named_parameters()}
    of = {named[id(p)]: group for group in experiment.optimizer.param_groups for p in group["params"]}
    assert of.keys() == set(named.values())
    for name, group in of.items():
        rate = 0.5 if name == "head.threshold" else 0.2 if name.startswith("head") else 0.1
        decay = 1e-3 if name == "head.weight" else 2e-4  # the longest prefix alone counts
        assert (group["initial_lr"], group["weight_decay"]) == (rate, decay), name
        assert group["initial_momentum"] == 0.9
    for step in (0, 233, 234, 11700, 23399, 46799):
        assert experiment.schedules["lr"](0.1, step, 46800) == pytest.approx(0.1 * 0.99 ** (step // 234), rel=1e-12)
        for own in (0.9, 0.7):
            expected = 0.5 + (own - 0.5) * min(1, step / 23400)
            assert experiment.schedules["momentum"](own, step, 46800) == pytest.approx(expected, rel=1e-12)


def frozen(build):
    """A builder's `method` whose backbone is not trained."""

    def method(facts):
        made = build(facts)
        made.backbone.requires_grad_(False)
        return made

    return method


CACHED = ("trainer.cache_features=true", "dataset.augment=null", "dataset.symmetries=none")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((*CACHED, "dataset.symmetries=dihedral"), r"dataset\.symmetries=none"),
        (("trainer.cache_features=true", "dataset.symmetries=none"), r"dataset\.augment=null"),
        ((*CACHED, "eval.bn_mode=support"), r"eval\.bn_mode=support"),
    ],
)
def test_features_are_cached_only_where_they_stay_the_same(builder, overrides, message) -> None:
    made = builder(*overrides, method="siamese")
    made.method = frozen(made.method)
    with pytest.raises(UserError, match=message):
        made.experiment()


@torch.no_grad()
def test_features_of_a_frozen_backbone_are_cached(builder) -> None:
    made = builder(*CACHED, method="siamese")
    made.method = frozen(made.method)
    experiment = made.experiment()
    assert isinstance(experiment.validation.viewer, FeatureViewer)
    assert experiment.validation.viewer is experiment.items.viewer
    assert experiment.items.viewer.features is None  # nothing is computed until it is asked for
    assert "1 x 16 x 16" in experiment.describe()
    assert experiment.items.viewer.features is None
    assert experiment.items[0].images.shape[1:] == (experiment.method.backbone.out_features,)
    torch.testing.assert_close(
        experiment.items[0].images[:3],
        experiment.method.backbone.eval()(experiment.items.viewer.pictures(experiment.items.sampler[0].images[:3])),
    )


def test_results_of_the_same_tasks_are_replaced_where_they_stood() -> None:
    own = {"name": "a", "dataset": "x", "metric": "accuracy", "accuracy": 0.5, "ci95": 0.1, "step": 3, "tasks": "t"}
    other = {**own, "dataset": "y"}
    new = {**own, "accuracy": 0.7, "ci95": 0.2, "further": {"loss": 1}}
    assert merge([own, other], [new]) == [new, other]
    assert merge([own], [other]) == [own, other]


@pytest.mark.parametrize(
    ("test", "asked"),
    [
        (["eval.protocol=verification", "dataset.split=random"], "test"),
        (["eval.protocol=closed_set", "dataset.split=images"], "test"),
        (["eval.protocol=retrieval", "dataset.split=images", "trainer.monitor=map_at_5"], "train"),
    ],
)
def test_the_projector_shows_what_any_test_of_classes_asks_about(fsl, pictures, tmp_path, test, asked) -> None:
    words = [*pictures(range(5)), *test, "dataset.tests=null"]
    answer = fsl("train", *words, "trainer.max_steps=2", f"output_dir={tmp_path}/outputs")
    assert answer.code == 0, answer.err
    [metadata] = answer.run.glob("tb/*/test/metadata.tsv")
    table = Builder(compose(words)).dataset.table(asked)
    if asked == "train":  # what there is to be found again, that of validation as well
        assert len(metadata.read_text().split()) > len(table.members)
    else:
        assert metadata.read_text().split() == [table.names[label] for label in table.image_labels]


def test_a_class_that_the_split_by_images_cannot_test_is_named(fsl, pictures, tmp_path) -> None:
    words = pictures(range(5))
    for number in range(1, 5):
        (tmp_path / "pictures" / "class03" / f"{number}.png").unlink()
    answer = fsl("train", *words, "dataset.split=images", "eval.protocol=closed_set", "trainer.max_steps=2",
                 f"output_dir={tmp_path}/outputs")  # fmt: skip
    assert answer.code == 0, answer.err
    assert "1 class has no test images (of a class of fewer than 3 images all are trained on): class03\n" in answer.err


@pytest.mark.parametrize(
    ("runs", "name"), [("null", "lake_runs"), ("lake", "lake_runs"), ("tutorial", "tutorial_runs")]
)
def test_fixed_runs_are_called_so_whoever_asks_for_them(runs, name) -> None:
    config = compose(["dataset=omniglot", "eval.protocol=runs", f"eval.runs={runs}"])
    further = config["dataset"]["tests"]
    tutorial = compose(["experiment=siamese_tutorial"])["dataset"]["tests"]
    own = Builder(config).own_test
    for asked in (further, tutorial):
        asked = {key: test for key, test in asked.items() if test is not None and test.get("protocol") == "runs"}
        plan = EvaluationPlan(own, val_episodes=1, further=asked, split="lake")
        assert list(plan.tests) == list({name: None, **asked})
        assert plan.tests[name] == own
