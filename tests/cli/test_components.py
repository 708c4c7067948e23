"""Components that are each in order and do not go together, or not into that place."""

import inspect

import pytest
import torch
from torch import nn

from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.compose import compose
from fewshot_runner.cli.conf import conf_dir
from fewshot_runner.cli.optimizer import make_optimizer
from fewshot_runner.data.dataset import Dataset
from fewshot_runner.engine.features import FeatureViewer
from fewshot_runner.errors import UserError

CROPS = "fewshot_runner.data.crops"
CASES = {
    "a crop of pictures among the transforms": (
        ["prototypical", f"+dataset.augment.crop={{_target_: {CROPS}.RandomResizedCrop, size: 16}}"], "dataset.crop",
    ),
    "a crop of batches in the place of one of pictures": (
        ["prototypical", f"dataset.crop={{_target_: {CROPS}.CentreCrop, size: 16}}"], "dataset.augment",
    ),
    "what is no transform": (
        ["prototypical", "+dataset.augment.last={_target_: fewshot_runner.data.transforms.Standardise}"],
        "dataset.augment: cannot be used there",
    ),
    "a misspelt option of single layers": (
        ["prototypical", "+method.layers={backbone.blocks.0:{lrr:0}}"], "did you mean lr?",
    ),
    "an option of single layers that is out of range": (
        ["prototypical", "+method.layers={backbone.blocks.0:{lr:-5}}"], "Invalid learning rate: -5",
    ),
    "no options of single layers": (["prototypical", "+method.layers={backbone.blocks.0:0.1}"], "give a group of keys"),
    "an optimiser that asks for the loss itself": (
        ["prototypical", "method.optimizer._target_=torch.optim.LBFGS", "~method.optimizer.weight_decay"], "Adam",
    ),
    "an optimiser of sparse gradients": (
        ["prototypical", "method.optimizer._target_=torch.optim.SparseAdam", "~method.optimizer.weight_decay"], "Adam",
    ),
    "pairs for a loss that uses none": (
        ["triplet", "~method.sampler.n_classes", "~method.sampler.n_images", "~method.sampler.n_groups",
         "method.sampler._target_=fewshot_runner.data.samplers.PairSampler", "+method.sampler.n_pairs=50"],
        "method.sampler chooses pairs: Triplet uses none",
    ),
    "runs that are not there, rather than classes that no episode may show": (
        ["finetune", "eval.protocol=runs"], "dataset=glyphs has no fixed runs",
    ),
    "batches of one before a batch norm of single pixels": (
        ["finetune", "model=conv4_pooled", "model.widths=[8,8,8,8]", "method.sampler.batch_size=1"],
        "method.sampler.batch_size=1",
    ),
    "inner batches of one before the same": (
        ["reptile", "model=conv4_pooled", "model.widths=[8,8,8,8]", "method.learner.inner_batch=1"],
        "method.learner.inner_batch=1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_with_what_to_do_and_nothing_is_left(refused, tiny, name):
    (method, *words), named = CASES[name]
    assert named in refused("train", *tiny(method), *words)


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("siamese", "hidden=-1"), ("siamese", "one_shot=-1"), ("siamese", "mean_of=scores"),
        ("prototypical", "distance=l3"), ("prototypical", "scale=0"),
        ("triplet", "margin=0"), ("triplet", "mining=easy"), ("triplet", "distance=l3"), ("triplet", "embedding=-1"),
        ("contrastive", "margin=0"), ("contrastive", "distance=l3"),
        ("maml", "order=3"), ("maml", "inner_lr=0"), ("anil", "inner_lr=-1"),
        ("reptile", "inner_optimizer=rmsprop"), ("reptile", "inner_loss=max"), ("reptile", "test_steps=0"),
        ("finetune", "hidden=-1"), ("finetune", "dropout=1"), ("finetune", "fit_steps=0"), ("finetune", "fit_l2=0"),
    ],
)  # fmt: skip
def test_a_value_that_its_method_refuses_is_named_as_the_command_line_says_it(tiny, method, value):
    with pytest.raises(UserError, match=rf"method\.learner\.{value}(, .*)?: (give|choose) "):
        Builder(compose([*tiny(method), f"method.learner.{value}"])).experiment()


@pytest.mark.parametrize(
    "words", [["finetune", "method.sampler.batch_size=1"], ["reptile", "method.learner.inner_batch=1"]]
)
def test_batches_of_one_are_fine_where_maps_have_pixels_to_be_normalised_over(fsl, tiny, tmp_path, words):
    method, *overrides = words
    answer = fsl("train", *tiny(method), "model=conv4", *overrides, "trainer.max_steps=2", f"output_dir={tmp_path}")
    assert answer.code == 0, answer.err


@pytest.fixture
def encoder(tiny):
    """A builder of a run whose method stores its network as `encoder`."""

    def make(*overrides: str, frozen: bool = False) -> Builder:
        config = compose([*tiny("finetune"), "trusted_packages=[encoder_method]", *overrides])
        config["method"]["learner"] = {"_target_": "encoder_method.Encoder", "frozen": frozen}
        return Builder(config)

    return make


def test_features_are_cached_whatever_a_method_calls_its_network(encoder):
    words = ["trainer.cache_features=true", "dataset.augment=null", "dataset.symmetries=none"]
    experiment = encoder(*words, frozen=True).experiment()
    assert isinstance(experiment.items.viewer, FeatureViewer)
    assert experiment.items[0].images.shape[1:] == (experiment.method.encoder.out_features,)
    with pytest.raises(UserError, match=r"set model\.frozen=true"):
        encoder(*words).experiment()


def test_a_network_is_compiled_whatever_a_method_calls_it(encoder, monkeypatch):
    monkeypatch.setattr("fewshot_runner.engine.device.check_compiler", lambda: None)  # it would compile at first use
    builder = encoder("hardware.compile=true")
    assert builder.method(builder.facts()).encoder._compiled_call_impl is not None


def test_a_network_is_looked_at_whatever_a_method_calls_it(encoder, monkeypatch):
    """For a batch norm of single values, and for weights that expect images of another standard."""
    with pytest.raises(UserError, match=r"method\.sampler\.batch_size=1"):
        encoder("model=conv4_pooled", "model.widths=[8,8,8,8]", "method.sampler.batch_size=1").experiment()
    monkeypatch.setattr("fewshot_runner.cli.build.standardised_otherwise", lambda network, *_: [type(network).__name__])
    assert "Conv4" in encoder().experiment().remarks


def test_layers_have_options_of_their_own(tiny):
    """The first block keeps still, the second does not."""
    experiment = Builder(compose([*tiny(), "+method.layers={backbone.blocks.0:{lr:0}}"])).experiment()
    names = {id(parameter): name for name, parameter in experiment.method.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in experiment.optimizer.param_groups for p in group["params"]}
    assert rates["backbone.blocks.0.0.weight"] == 0
    assert rates["backbone.blocks.1.0.weight"] > 0


@pytest.mark.parametrize("dataset", sorted(path.stem for path in (conf_dir() / "dataset").glob("*.yaml")))
def test_every_data_set_has_every_key_of_a_data_set(dataset):
    own = ["dataset.path=x"] if dataset in ("csv", "folder") else []
    described = compose([f"dataset={dataset}", *own])["dataset"]
    assert {*inspect.signature(Dataset).parameters} - {"progress", "keep"} <= {*described}


def test_layers_are_told_by_whole_names(tiny, refused):
    """ "backbone.block" is the beginning of a name, and no part of the network."""
    said = refused("train", *tiny(), "+method.layers={backbone.block:{lr:0}}")
    assert "method.layers.backbone.block: no trained parameter is called so" in said
    layers = nn.ModuleList([nn.Linear(1, 1) for _ in range(12)])
    described = {"optimizer": {}, "layers": {"1": {"lr": 0.0}}}
    made = make_optimizer(lambda _, key, params: torch.optim.SGD(params, lr=1.0), described, layers, [])
    slow = [p for group in made.param_groups if group["lr"] == 0 for p in group["params"]]
    assert {id(p) for p in slow} == {id(p) for p in layers[1].parameters()}


def test_turned_pictures_are_no_classes_of_a_trained_head(refused, tiny):
    words = ["eval.protocol=closed_set", "dataset.symmetries=dihedral", "episode.n_way=all", "episode.n_shot=0"]
    assert "set dataset.symmetries=none" in refused("train", *tiny("finetune"), *words)


def test_a_defect_in_a_package_of_ones_own_is_said_to_be_there(fsl, tiny, tmp_path, monkeypatch):
    file = tmp_path / "flawed" / "network.py"
    file.parent.mkdir()
    file.write_text(
        "import torch\nfrom fewshot_runner.models.conv4 import Conv4\n\n"
        "class Network(Conv4):\n    def forward(self, images):\n        return torch.ones(3) @ torch.ones(2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ["model._target_=flawed.network.Network", "trusted_packages=[flawed]", f"output_dir={tmp_path}"]
    answer = fsl("train", *tiny(), *words)
    assert answer.code == 1
    assert answer.err.rstrip().endswith(f"This came from {file}.")
