"""Fused and folded blocks against the plain layers, which are torch's own."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.facts import Facts
from fewshot_runner.models import conv_block, fused
from fewshot_runner.models.batch_norm import normalised_by
from fewshot_runner.models.conv4 import Conv4
from fewshot_runner.models.conv4_strided import Conv4Strided
from fewshot_runner.models.conv_block import ConvBlock, differentiated_twice
from fewshot_runner.models.fused import conv_norm_relu_pool, conv_pool_values

GAMMAS = [1.5, -0.7, 0.2, -1e-3, 0.9]
LAYOUTS = [torch.channels_last, torch.contiguous_format]


@pytest.fixture(autouse=True)
def fuse_small_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_block, "LEAST_VALUES", 1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which blocks went the fused or the folded way; without it a test could compare plain with plain."""
    seen: list[str] = []

    def watch(name: str) -> None:
        original: Callable[..., Tensor] = getattr(ConvBlock, name)
        monkeypatch.setattr(ConvBlock, name, lambda block, images: (seen.append(name), original(block, images))[1])

    watch("_fused")
    watch("_folded")
    return seen


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pair(
    inputs: int, *, pool: str = "last", dtype: torch.dtype = torch.float64, layout: torch.memory_format = LAYOUTS[0]
) -> tuple[ConvBlock, nn.Sequential]:
    """A block and the plain layers with the same values, scales of both signs among them."""
    block = ConvBlock(inputs, len(GAMMAS), pool=pool).to(dtype)
    block[0].weight.data = rand(len(GAMMAS), inputs, 3, 3, seed=1, dtype=dtype)
    block.norm.weight.data = torch.tensor(GAMMAS, dtype=dtype)
    block.norm.bias.data = rand(len(GAMMAS), seed=2, dtype=dtype) / 3
    block.norm.running_mean.data = rand(len(GAMMAS), seed=3, dtype=dtype)
    block.norm.running_var.data = rand(len(GAMMAS), seed=4, dtype=dtype).square() + 0.1
    block = block.to(memory_format=layout)
    return block, nn.Sequential(*copy.deepcopy(list(block)))


def pictures(channels: int, size: int, *, dtype: torch.dtype = torch.float64, seed: int = 5) -> Tensor:
    """Seven images: one of them blank and one blank in its upper half, whose windows are full of ties."""
    images = rand(7, channels, size, size + 1, seed=seed, dtype=dtype)
    images[3] = 0
    images[4, :, : size // 2] = 0.5
    return images


def compare(block: nn.Module, plain: nn.Module, images: Tensor, *, needs_gradient: bool, tolerance: float) -> None:
    results = []
    for network in (block, plain):
        network.zero_grad()
        seen = images.clone().requires_grad_(needs_gradient)
        output = network(seen)
        output.backward(rand(*output.shape, seed=6, dtype=output.dtype))
        gradients = [parameter.grad for parameter in network.parameters()]
        buffers = [buffer.to(output.dtype) for buffer in network.buffers()]
        results.append([output.detach(), *gradients, *buffers, *([seen.grad] if needs_gradient else [])])
    for ours, theirs in zip(*results, strict=True):
        scale = max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
@pytest.mark.parametrize("size", [8, 9, 2, 3])
@pytest.mark.parametrize(("channels", "needs_gradient"), [(1, False), (3, False), (1, True), (4, False), (4, True)])
def test_training_equals_the_plain_layers(
    calls: list, channels: int, needs_gradient: bool, size: int, dtype: torch.dtype, tolerance: float, layout
) -> None:
    block, plain = pair(channels, dtype=dtype, layout=layout)
    images = pictures(channels, size, dtype=dtype).to(memory_format=layout)
    for _ in range(2):  # the second time from the running statistics of the first
        compare(block, plain, images, needs_gradient=needs_gradient, tolerance=tolerance)
    assert calls == ["_fused"] * 2


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 5e-5)])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("model", [Conv4, Conv4Strided])
def test_networks_in_either_memory_format_agree(
    calls: list, model: type, channels: int, dtype: torch.dtype, tolerance: float, layout
) -> None:
    """Whatever the format of the images. These are noise: in a second block, rounding alone would decide ties."""
    torch.manual_seed(0)
    contiguous = model(Facts(image_shape=(channels, 9, 10), n_classes=5, n_way=5), widths=(5, 5)).to(dtype)
    for block in contiguous.blocks:
        block.norm.weight.data = torch.tensor(GAMMAS, dtype=dtype)
    channels_last = copy.deepcopy(contiguous).to(memory_format=torch.channels_last)
    images = rand(7, channels, 9, 10, dtype=dtype).to(memory_format=layout)
    for _ in range(2):
        compare(channels_last, contiguous, images, needs_gradient=channels == 4, tolerance=tolerance)
    assert len(calls) == (8 if model is Conv4 else 0)


@pytest.mark.parametrize("channels", [1, 4])
def test_many_chunks_are_one_whole(monkeypatch: pytest.MonkeyPatch, calls: list, channels: int) -> None:
    monkeypatch.setattr(fused, "CHUNK_VALUES", 900)  # of 7 images with 5 x 8 x 9 values each
    block, plain = pair(channels)
    compare(block, plain, pictures(channels, 8), needs_gradient=False, tolerance=1e-10)
    assert calls


@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("channels", [1, 4])
def test_running_statistics_follow_momentum(calls: list, channels: int, momentum: float | None, track: bool) -> None:
    block, plain = pair(channels)
    for norm in (block.norm, plain[1]):
        norm.momentum, norm.track_running_stats = momentum, track
    for step in range(3):
        compare(block, plain, pictures(channels, 8, seed=step), needs_gradient=False, tolerance=1e-10)
    assert block.norm.num_batches_tracked == (3 if track else 0)
    assert len(calls) == 3


def test_a_scale_of_zero_is_left_to_the_plain_layers(calls: list) -> None:
    block, plain = pair(1)
    for norm in (block.norm, plain[1]):
        norm.weight.data[2] = 0
    compare(block, plain, pictures(1, 8), needs_gradient=True, tolerance=1e-10)
    assert not calls


@pytest.mark.parametrize("channels", [1, 4])
def test_gradients_against_differences(channels: int) -> None:
    images = rand(3, channels, 5, 4)
    weight, beta = rand(5, channels, 3, 3, seed=1).requires_grad_(), rand(5, seed=2).requires_grad_()
    gamma = torch.tensor(GAMMAS, dtype=torch.float64).requires_grad_()
    images.requires_grad_(channels == 4)

    def output(*inputs: Tensor) -> Tensor:
        return conv_norm_relu_pool(*inputs, 1e-5)[0]

    assert torch.autograd.gradcheck(output, (images, weight, gamma, beta))
    assert torch.autograd.gradgradcheck(output, (images, weight, gamma, beta), atol=1e-4)


@pytest.mark.parametrize("channels", [1, 4])
def test_second_derivatives_equal_the_plain_ones_fused_or_not(calls: list, channels: int) -> None:
    block, plain = pair(channels)
    images = pictures(channels, 8)
    results = []
    for network, asked in ((block, False), (block, True), (plain, True)):
        network.zero_grad()
        with differentiated_twice(network, when=asked):
            first = torch.autograd.grad(network(images).square().sum(), list(network.parameters()), create_graph=True)
        sum(each.square().sum() for each in first).backward()
        results.append([parameter.grad.clone() for parameter in network.parameters()])
    assert calls == ["_fused"]  # the one that was not told
    for ours in results[:2]:
        for one, other in zip(ours, results[2], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("pool", conv_block.POOLING)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_folded_evaluation_equals_the_plain_layers(
    calls: list, pool: str, dtype: torch.dtype, tolerance: float
) -> None:
    block, plain = pair(4, pool=pool, dtype=dtype)
    images = pictures(4, 9, dtype=dtype)
    before = copy.deepcopy(block.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(block.eval()(images), plain.eval()(images), rtol=tolerance, atol=tolerance)
    assert calls == ([] if pool == "first" else ["_folded"])
    assert all(torch.equal(value, before[key]) for key, value in block.state_dict().items())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("chunk_values", [1, 2 * 5 * 9 * 10, 2**20])  # one, two and all seven images at once
def test_pooling_without_gradients_equals_torchs(
    monkeypatch: pytest.MonkeyPatch, chunk_values: int, layout: torch.memory_format
) -> None:
    monkeypatch.setattr(fused, "CHUNK_VALUES", chunk_values)
    images = pictures(4, 9).to(memory_format=layout)
    images[0, 0, 4, 4], images[1, 0, 4, 4], images[2, 0, 4, 4] = torch.nan, torch.inf, -torch.inf
    weight, bias = rand(5, 4, 3, 3, seed=1).to(memory_format=layout), rand(5, seed=2)
    expected = functional.max_pool2d(functional.conv2d(images, weight, bias, padding=1), 2)
    found = conv_pool_values(images, weight, bias)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12, equal_nan=True)
    assert found.is_contiguous(memory_format=layout)


def test_what_learns_in_evaluation_mode_is_not_folded(calls: list) -> None:
    block, plain = pair(1)
    compare(block.eval(), plain.eval(), pictures(1, 8), needs_gradient=True, tolerance=0)
    for parameter in block.parameters():
        parameter.requires_grad_(False)
    assert calls == []
    block(pictures(1, 8))
    assert calls == ["_folded"]


def test_each_fast_path_can_be_turned_off(calls: list) -> None:
    block, _ = pair(1)
    block.fuse_blocks = block.fold_batch_norm = False
    block(pictures(1, 8))
    with torch.no_grad():
        block.eval()(pictures(1, 8))
    assert calls == []


def test_mixed_precision_sees_the_plain_layers(calls: list) -> None:
    block, _ = pair(1, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        block(pictures(1, 8, dtype=torch.float32))
    assert calls == []


@pytest.mark.parametrize("kind", ["forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook"])
def test_hooks_see_the_plain_layers(calls: list, kind: str) -> None:
    block, _ = pair(1)
    seen = []
    hook = getattr(block[2], f"register_{kind}")(lambda layer, *_: seen.append(layer))
    block(pictures(1, 8).requires_grad_()).sum().backward()
    hook.remove()
    assert seen == [block[2]]
    assert calls == []
    block(pictures(1, 8))
    assert calls == ["_fused"]


def test_borrowed_statistics_are_folded_in(calls: list) -> None:
    block, plain = pair(1, dtype=torch.float32)
    support, query = (pictures(1, 8, seed=seed, dtype=torch.float32) for seed in (5, 9))
    answers = []
    for network in (block.eval(), plain.eval()):
        with torch.no_grad(), normalised_by(network, lambda network=network: network(support)):
            answers.append(network(query))
    torch.testing.assert_close(*answers, rtol=1e-5, atol=1e-5)
    assert calls == ["_folded"]


@pytest.mark.parametrize("model", [Conv4, Conv4Strided])
def test_checkpoints_fit_the_plain_layers(model: type) -> None:
    network = model(Facts(image_shape=(1, 16, 16), n_classes=5, n_way=5), widths=(4, 6))
    layers = [nn.Sequential(*block) for block in network.blocks]
    plain = nn.ModuleDict({"blocks": nn.Sequential(*layers)})
    assert list(network.state_dict()) == list(plain.state_dict())
    assert "blocks.1.1.running_var" in network.state_dict()


def test_training_takes_the_same_way(calls: list) -> None:
    """Ten steps of two networks that start alike: the same losses, the same running statistics."""
    losses, networks = [], []
    for fast in (True, False):
        torch.manual_seed(0)
        network = Conv4(Facts(image_shape=(1, 17, 17), n_classes=3, n_way=3), widths=(6, 7, 8)).double()
        for block in network.blocks:
            block.fuse_blocks = fast
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
        images, targets = rand(12, 1, 17, 17), torch.arange(12) % 3
        curve = []
        for _ in range(10):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(images)[:, :3], targets)
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        losses.append(curve)
        networks.append(network)
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    assert losses[0][-1] < 0.9 * losses[0][0]
    for ours, theirs in zip(*(network.state_dict().values() for network in networks), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
    assert len(calls) == 30
