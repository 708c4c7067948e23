"""The parts of an inner loop against PyTorch's own modules and optimisers, and against hand arithmetic.

Shapes: E episodes, N ways, S support images, Q queries.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from inner_loops import backbone, centred, episode, fitted_by_optimiser
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from fewshot_runner.data.batch import Episode
from fewshot_runner.engine.metrics import query_accuracy
from fewshot_runner.facts import Facts
from fewshot_runner.methods.adaptation import (
    TaskNetwork,
    absorb_statistics,
    batch_statistics,
    classify_adapted,
    places_of,
    standing_in,
)
from fewshot_runner.methods.base import Method
from fewshot_runner.methods.maml import Maml
from fewshot_runner.methods.reptile import Reptile
from fewshot_runner.models import conv_block
from fewshot_runner.models.conv4 import Conv4
from fewshot_runner.models.conv4_strided import Conv4Strided
from fewshot_runner.models.conv_block import differentiated_twice
from fewshot_runner.models.pixels import Pixels
from fewshot_runner.models.pretrained import Pretrained

N, LR, STEPS = 3, 0.1, 4


@pytest.mark.parametrize("at_start", [True, False])
def test_gradients_of_the_head_are_exact_where_the_network_is_not(at_start: bool) -> None:
    features, labels = torch.rand(6, 1, 4, 4), torch.arange(6) % N
    task = replace(TaskNetwork.copy_of(Pixels(Facts((1, 4, 4), 9, N)), N, images=features), at_start=at_start)
    task = replace(task, head=torch.rand(N, 16).requires_grad_() if not at_start else task.head)
    _, exact = task.gradients(features, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, mixed = task.gradients(features, labels)
    torch.testing.assert_close(mixed[-1], exact[-1], rtol=1e-5, atol=1e-7)


def descend(task: TaskNetwork, images: Tensor, labels: Tensor) -> TaskNetwork:
    for _ in range(STEPS):
        task = task.cut()
        task = task.moved(task.gradients(images, labels)[1], scale=-LR)
    return task


@torch.no_grad()
def by_own_statistics(model: nn.Sequential, normalisers: Tensor, images: Tensor) -> Tensor:
    """Each of `images` by itself, normalised layer by layer by the mean and variance of `normalisers`."""
    features = []
    for image in images:
        left, right = normalisers, image[None]
        for block in model[0].blocks:
            convolution, norm, _ = block
            left, right = convolution(left), convolution(right)
            mean, variance = left.mean((0, 2, 3)), left.var((0, 2, 3), correction=0)
            left, right = (
                functional.batch_norm(side, mean, variance, norm.weight, norm.bias).clamp(min=0)
                for side in (left, right)
            )
        features.append(right.flatten(1))
    return model[1](torch.cat(features))


def test_running_statistics_move_with_the_steps() -> None:
    network, tasks = backbone(), episode()
    logits = classify_adapted(network, tasks, descend, reach=LR * STEPS, bn_mode="running", at_once=True)
    for e in range(2):
        model = fitted_by_optimiser(network, tasks.support[e], tasks.support_labels[e], n_way=N, lr=LR, steps=STEPS)
        expected = model.eval()(tasks.query[e])
        assert expected.std() > 0.1
        torch.testing.assert_close(logits[e], centred(expected), rtol=1e-4, atol=1e-4)


def test_support_statistics_are_those_of_the_fitted_network() -> None:
    network, tasks = backbone(), episode()
    logits = classify_adapted(network, tasks, descend, reach=LR * STEPS, bn_mode="support", at_once=True)
    for e in range(2):
        model = fitted_by_optimiser(network, tasks.support[e], tasks.support_labels[e], n_way=N, lr=LR, steps=STEPS)
        expected = by_own_statistics(model, tasks.support[e], tasks.query[e])
        torch.testing.assert_close(logits[e], centred(expected), rtol=1e-4, atol=1e-4)


def test_transductive_statistics_are_those_of_the_queries() -> None:
    network, tasks = backbone(), episode()
    logits = classify_adapted(network, tasks, descend, reach=LR * STEPS, bn_mode="transductive", at_once=True)
    for e in range(2):
        model = fitted_by_optimiser(network, tasks.support[e], tasks.support_labels[e], n_way=N, lr=LR, steps=STEPS)
        expected = by_own_statistics(model, tasks.query[e], tasks.query[e])
        torch.testing.assert_close(logits[e], centred(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bn_mode", ["running", "support", "transductive"])
def test_the_backbone_stays_as_it_is(bn_mode: str) -> None:
    network = backbone().train()
    network.blocks[0].training = False
    values = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        classify_adapted(network, episode(), descend, reach=LR * STEPS, bn_mode=bn_mode, at_once=True)
    assert all(torch.equal(value, values[name]) for name, value in network.state_dict().items())
    assert [network.training, network.blocks[0].training, network.blocks[1].training] == [True, False, True]
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.double, 1e-10), (torch.float, 1e-4)])
@pytest.mark.parametrize("model", [Conv4, Conv4Strided])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_the_first_gradients_are_those_of_the_whole_network(
    monkeypatch: pytest.MonkeyPatch, reduction: str, create_graph: bool, model: type, dtype: torch.dtype,
    tolerance: float,
) -> None:  # fmt: skip
    """Though the backward pass through the backbone is left out: a head of zeros passes nothing back."""
    monkeypatch.setattr(conv_block, "LEAST_VALUES", 1)
    shown, network = episode(), backbone(model).to(dtype).train()
    images, labels = shown.support[0].to(dtype), shown.support_labels[0]
    task, whole = (TaskNetwork.copy_of(network, N, images=images) for _ in range(2))
    loss, gradients = task.gradients(images, labels, reduction=reduction, create_graph=create_graph)
    with differentiated_twice(network):
        expected = functional.cross_entropy(whole.logits(images), labels, reduction=reduction)
    others = torch.autograd.grad(expected, whole.adapted, create_graph=create_graph)
    found, wanted = [loss, *gradients, *task.buffers.values()], [expected, *others, *whole.buffers.values()]
    if create_graph:
        found += torch.autograd.grad(gradients[-1].square().sum(), task.adapted)
        wanted += torch.autograd.grad(others[-1].square().sum(), whole.adapted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    assert gradients[-1].abs().max() > 0
    assert not torch.equal(task.buffers["blocks.0.1.running_mean"], network.blocks[0].norm.running_mean)
    task = task.moved(gradients, scale=-0.1).cut()
    assert all(gradient.abs().max() > 0 for gradient in task.gradients(images, labels)[1]), "only where it is zero"


def test_steps_keep_the_memory_format() -> None:
    """Also of the first layer, whose one input channel leaves two sets of strides for one order in memory."""
    shown, network = episode(), backbone().to(memory_format=torch.channels_last)
    task = TaskNetwork.copy_of(network.train(), N, images=shown.support)
    for _ in range(2):
        task = task.cut()
        task = task.moved(task.gradients(shown.support[0], shown.support_labels[0])[1], scale=-0.1)
    for name, weight in task.weights.items():
        assert weight.stride() == network.get_parameter(name).stride()


def test_frozen_weights_are_not_adapted() -> None:
    network = backbone()
    network.blocks[0].requires_grad_(False)
    tasks = episode()
    task = TaskNetwork.copy_of(network, N, images=tasks.support)
    assert list(task.weights) == ["blocks.1.0.weight", "blocks.1.1.weight", "blocks.1.1.bias"]
    fitted = descend(task, tasks.support[0], tasks.support_labels[0])
    model = copy.deepcopy(network)
    for name, weight in fitted.weights.items():
        assert not torch.equal(weight, model.get_parameter(name))
        model.get_parameter(name).data = weight.detach()
    torch.testing.assert_close(fitted.logits(tasks.query[0]), model(tasks.query[0]) @ fitted.head.T)


def test_a_row_that_all_ways_share_changes_nothing() -> None:
    """The reason for a head that begins at zero: any common row gives the same network and the same answers."""
    network, tasks = backbone(), episode()
    images, labels = tasks.support[0], tasks.support_labels[0]
    zero = TaskNetwork.copy_of(network, N, images=images)
    row = torch.randn(network.out_features, generator=torch.Generator().manual_seed(3))
    zero = replace(zero, buffers={}, at_start=False)
    shared = replace(zero, head=row.repeat(N, 1).requires_grad_())
    network.eval()
    zero, shared = descend(zero, images, labels), descend(shared, images, labels)
    for name, weight in zero.weights.items():
        torch.testing.assert_close(shared.weights[name], weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shared.head - row, zero.head, rtol=1e-4, atol=1e-5)


def test_tensors_stand_in_as_torch_calls_a_function_of_them_and_go_again() -> None:
    """Also where two layers share a weight, and where the network fails."""
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 3)))
    network[2][0].weight = network[0].weight
    own = {name: (tensor, tensor.clone()) for name, tensor in network.state_dict(keep_vars=True).items()}
    named = dict(network.named_parameters()) | dict(network.named_buffers())
    generator = torch.Generator().manual_seed(0)
    others = {name: tensor + torch.rand(tensor.shape, generator=generator) for name, tensor in named.items()}
    copies = {name: tensor.clone() for name, tensor in others.items()}
    rows = torch.rand(4, 3, generator=generator)
    expected = functional_call(network, copies, (rows,))
    with standing_in(others, places_of(network)):
        assert torch.equal(network(rows), expected)
        assert network[2][0].weight is network[0].weight is others["0.weight"]
    assert torch.equal(others["1.running_mean"], copies["1.running_mean"])  # batch norm has moved what stood in
    assert not torch.equal(others["1.running_mean"], own["1.running_mean"][0])
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), standing_in(others, places_of(network)):
        network(rows.T)
    for name, tensor in network.state_dict(keep_vars=True).items():
        assert tensor is own[name][0]
        assert torch.equal(tensor, own[name][1])


def test_buffers_become_the_mean_of_the_copies() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1))
    copies = [
        {"0.running_mean": torch.tensor([mean]), "0.running_var": torch.tensor([3.0]),
         "0.num_batches_tracked": torch.tensor(5)}
        for mean in (1.0, 2.0)
    ]  # fmt: skip
    absorb_statistics(network, copies)
    assert network[0].running_mean.item() == pytest.approx(1.5)
    assert network[0].running_var.item() == pytest.approx(3.0)
    assert network[0].num_batches_tracked.item() == 5


def test_batch_statistics_concern_batch_norm_alone() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(), nn.BatchNorm2d(1)).eval()
    network[2].train()
    with batch_statistics(network):
        assert [part.training for part in network] == [True, False, True]
    assert [part.training for part in network] == [False, False, True]


def test_batch_statistics_leave_out_what_is_frozen() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm2d(1)).eval()
    network[0].requires_grad_(False)
    with batch_statistics(network):
        assert [part.training for part in network] == [False, True]


def half_frozen() -> Pretrained:
    """The first block keeps its running statistics, which are not those of the images; the second trains."""
    facts = Facts(image_shape=(1, 8, 8), n_classes=9, n_way=N)
    return Pretrained(facts, backbone(), name="toy", frozen=True, thaw=["blocks.1"])


LEARNERS: dict[str, Callable[..., Method]] = {
    "maml": partial(Maml, order=2),
    "reptile": partial(Reptile, inner_optimizer="adam", inner_lr=1e-3, inner_batch=10),
}


@pytest.mark.parametrize("bn_mode", ["running", "support", "transductive"])
@pytest.mark.parametrize("learner", LEARNERS)
def test_a_frozen_batch_norm_normalises_alike_in_training_and_in_classify(learner: str, bn_mode: str) -> None:
    network = half_frozen()
    frozen, learning = (block[1] for block in network.network.blocks)
    kept = copy.deepcopy(frozen).eval()
    learned = learning.running_mean.clone()
    seen, modes = [], []
    frozen.register_forward_hook(lambda layer, inputs, output: seen.append((inputs[0].detach(), output.detach())))
    learning.register_forward_hook(lambda layer, inputs, output: modes.append(layer.training))
    method = LEARNERS[learner](network, inner_steps=2, test_steps=2)
    method.bn_mode = bn_mode
    method.train().backward(episode(n_episodes=3))
    assert all(modes)
    with torch.no_grad():
        method.classify(episode())
        assert len(seen) >= 3 * 2 + 2 * (2 + 1)
        for maps, output in seen:
            torch.testing.assert_close(output, kept(maps))
    for name, buffer in frozen.named_buffers():
        assert torch.equal(buffer, kept.get_buffer(name)), name
    assert not torch.equal(learning.running_mean, learned)


@pytest.mark.parametrize("name", ["maml", "reptile"])
@pytest.mark.parametrize("rate", [1e-2, 1e-5, 1e-8])
def test_small_steps_make_small_logits_and_no_ties(name: str, rate: float) -> None:
    """What is a tie grows and shrinks with what the steps can make of a logit."""
    tasks, network = episode(shots=5, n_query=30), backbone()
    options = {"inner_lr": rate, "inner_steps": 1, "test_steps": 5}
    method: Method = Maml(network, order=1, **options)
    if name == "reptile":
        method = Reptile(network, inner_optimizer="sgd", inner_batch=5, **options)
    method.bn_mode = "transductive"
    logits = method.classify(tasks).detach()
    top = logits.topk(2, dim=-1).values
    assert (top[..., 0] > top[..., 1]).float().mean() > 0.95
    assert logits.argmax(-1).eq(tasks.query_labels).float().mean() > 0.8


def test_a_network_without_weights_is_fitted_in_the_precision_of_its_images() -> None:
    images = torch.rand(6, 1, 4, 4, dtype=torch.double)
    pixels = Pixels(Facts(image_shape=(1, 4, 4), n_classes=9, n_way=N))
    assert TaskNetwork.copy_of(pixels, N, images=images).head.dtype == torch.double


class Dense(nn.Module):
    """A network without batch norm, which would make all of a single picture zero."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 250)
        self.out_features = 250

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1)).relu()


@pytest.mark.parametrize("name", ["maml", "reptile"])
def test_trap_01_what_rounding_leaves_of_equal_images_is_a_tie(name: str) -> None:
    torch.manual_seed(0)
    options = {"inner_lr": 0.1, "inner_steps": 1, "test_steps": 10}
    network = Dense()
    method: Method = Maml(network, order=1, **options)
    if name == "reptile":
        method = Reptile(network, inner_optimizer="sgd", inner_batch=5, **options)
    picture = torch.rand(1, 1, 8, 8)
    for n_way in (2, 3, 5, 20):
        for shots in (1, 3, 5, 7):
            labels, asked = (torch.arange(n_way).repeat_interleave(count)[None] for count in (shots, 2))
            shown = [picture.expand(1, count, 1, 8, 8) for count in (n_way * shots, n_way * 2)]
            logits = method.classify(Episode(shown[0], labels, shown[1], asked, n_way)).detach()
            earned = query_accuracy(logits, asked)
            assert torch.equal(earned, torch.full_like(earned, 1 / n_way)), (n_way, shots)
