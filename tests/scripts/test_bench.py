"""The benchmark: contestants do the same work, and what is measured is counted and kept as it should be."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import large_store, networks
from benchmarks.measuring import Contestant, Figure, available_figures, race, ratio, speedup
from benchmarks.record import Record, amount
from processes import run_script
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.data.batch import Batch, Episode
from fewshot_runner.data.layout import Square
from fewshot_runner.data.store import open_store
from fewshot_runner.data.transforms import Warp
from fewshot_runner.facts import Facts
from fewshot_runner.methods import side_by_side
from fewshot_runner.methods.maml import Maml
from fewshot_runner.methods.prototypical import Prototypical
from fewshot_runner.methods.reptile import Reptile
from fewshot_runner.methods.siamese import Siamese
from fewshot_runner.models import conv_block
from fewshot_runner.models.conv4 import Conv4
from fewshot_runner.models.conv4_strided import Conv4Strided
from fewshot_runner.models.conv_block import ConvBlock
from fewshot_runner.models.siamese_cnn import SiameseCnn

N, K, Q = 3, 2, 4  # ways, shots, queries a class


@pytest.fixture
def fast_ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which fast ways ours has gone, as it does here with small maps too: else plain would be compared with plain."""
    gone: list[str] = []
    monkeypatch.setattr(conv_block, "LEAST_VALUES", 1)

    def watch(place: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *arguments: (gone.append(name), original(*arguments))[1])

    watch(ConvBlock, "_fused")
    watch(ConvBlock, "_folded")
    watch(conv_block, "conv_pool")
    watch(side_by_side, "_at_once")
    return gone


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def facts(size: int) -> Facts:
    return Facts(image_shape=(1, size, size), n_classes=9, n_way=N)


def images_by_class(size: int = 28) -> Tensor:
    """(N, K + Q, 1, size, size)."""
    return torch.rand(N, K + Q, 1, size, size, generator=torch.Generator().manual_seed(0))


def as_episode(images: Tensor) -> Episode:
    labels = torch.arange(N)
    return Episode(
        images[:, :K].flatten(0, 1)[None], labels.repeat_interleave(K)[None],
        images[:, K:].flatten(0, 1)[None], labels.repeat_interleave(Q)[None], N,
    )  # fmt: skip


def both(first: Episode, second: Episode) -> Episode:
    """The tasks of both."""
    parts = ("support", "support_labels", "query", "query_labels")
    return Episode(*(torch.cat([getattr(first, part), getattr(second, part)]) for part in parts), N)


def prototypical() -> Prototypical:
    """As the benchmark trains it: the sum of squared differences, whatever the learned scale does later."""
    torch.manual_seed(0)
    method = Prototypical(Conv4(facts(28)), distance="euclidean", scale=64.0)
    return method.to(memory_format=torch.channels_last)


def assert_equal_gradients(left: nn.Module, right: nn.Module) -> None:
    """To rounding, which batch norm over few values magnifies: it is the whole tensors that are compared."""
    for one, other in zip(left.parameters(), right.parameters(), strict=True):
        assert one.grad.norm() > 0
        assert (one.grad - other.grad).norm() <= 1e-3 * one.grad.norm()


def test_the_plain_loop_has_our_loss_and_gradients(fast_ways: list[str]) -> None:
    from benchmarks.rivals.plain_prototypical import Training

    ours, images = prototypical().train(), images_by_class()
    plain = networks.with_weights_of(networks.conv4(), ours.backbone)
    rival = Training(plain, images.flatten(0, 1), torch.arange(N + 1) * (K + Q), n_way=N, n_shot=K, n_query=Q)
    loss, theirs = ours.loss(as_episode(images)), rival.loss(images)
    assert fast_ways == ["_fused"] * 4
    assert theirs.item() == pytest.approx(loss.item(), rel=1e-4)
    loss.backward()
    theirs.backward()
    assert_equal_gradients(ours.backbone, plain)
    drawn = rival.draw()
    assert drawn.shape == (N, K + Q)
    assert [sorted(row) for row in (drawn // (K + Q)).tolist()] == [[row[0]] * (K + Q) for row in drawn // (K + Q)]
    assert len(drawn.unique()) == N * (K + Q)


def test_easyfsl_has_our_loss_gradients_and_answers(fast_ways: list[str]) -> None:
    """With batch norm's running statistics: in training it normalises support and queries apart."""
    pytest.importorskip("easyfsl", reason="needs easyfsl; install the extra bench")
    from benchmarks.rivals.easyfsl_loop import PrototypicalNetworks, task_loss

    ours, images = prototypical().eval(), images_by_class()
    plain = networks.with_weights_of(networks.conv4(), ours.backbone)
    episode, theirs = as_episode(images), PrototypicalNetworks(plain).eval()
    parts = (episode.support[0], episode.support_labels[0], episode.query[0], episode.query_labels[0])
    loss, their_loss = ours.loss(episode), task_loss(theirs, *parts)
    assert their_loss.item() == pytest.approx(loss.item(), rel=1e-4)
    loss.backward()
    their_loss.backward()
    assert_equal_gradients(ours.backbone, plain)
    assert not fast_ways  # gradients with running statistics have none
    with torch.no_grad():
        logits, distances = ours.classify(episode)[0], -theirs(episode.query[0])
    assert fast_ways == ["_folded"] * 4
    torch.testing.assert_close(logits, -distances.square(), rtol=1e-3, atol=1e-4)
    assert torch.equal(logits.argmax(-1), distances.argmin(-1))


@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_mined_losses_and_gradients_are_equal(distance: str) -> None:
    from benchmarks.figures.mining import batch, own_loss, their_loss

    results = []
    for loss_of in (own_loss, their_loss):
        embeddings, labels = batch()
        loss = loss_of(distance)(embeddings, labels)
        loss.backward()
        results.append((loss.detach(), embeddings.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert results[0][0] > 0


def test_the_siamese_tutorial_has_our_loss_and_gradients(fast_ways: list[str]) -> None:
    from benchmarks.rivals.siamese_tutorial import Twins, pair_loss

    torch.manual_seed(0)
    ours = Siamese(SiameseCnn(facts(105)), hidden=256)
    twins = networks.with_weights_of(Twins(), ours)
    images = torch.rand(8, 1, 105, 105)
    labels, pairs = torch.tensor([0, 0, 1, 1, 2, 3, 4, 5]), torch.arange(8).view(4, 2)  # two of one class, two of two
    loss = ours.loss(Batch(images, labels, groups=labels, pairs=pairs))
    assert fast_ways == ["conv_pool"]
    theirs = pair_loss(twins, images[0::2], images[1::2], torch.tensor([1.0, 1, 0, 0]))
    assert theirs.item() == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()
    theirs.backward()
    assert_equal_gradients(ours, twins)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("kind", ["reptile", "maml"])
def test_deep_copies_leave_our_gradients(kind: str, fast_ways: list[str]) -> None:
    """Strided blocks have no fused way; the two tasks are learned at once."""
    from benchmarks.figures.meta import maml_by_copies, reptile_by_copies

    torch.manual_seed(0)
    backbone = Conv4Strided(facts(16), widths=(8, 8))
    episode = both(as_episode(images_by_class(16)), as_episode(images_by_class(16).flip(1)))
    if kind == "maml":
        ours, rival = Maml(backbone, order=1, inner_lr=0.1, inner_steps=3), maml_by_copies
    else:
        ours = Reptile(backbone, inner_optimizer="sgd", inner_lr=0.1, inner_batch=9, inner_steps=4, test_steps=4)
        rival = reptile_by_copies
    plain = networks.with_weights_of(networks.conv4_strided((8, 8)), backbone.train())
    ours.train().backward(episode)
    assert fast_ways == ["_at_once"]
    rival(ours, plain, episode)
    assert_equal_gradients(backbone, plain)


def test_torchvision_turns_as_our_warp_does() -> None:
    from benchmarks.rivals.torchvision_one_by_one import affine_and_elastic
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as their

    class Fixed(Warp):
        def _affine(self, count: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
            turn = math.radians(10)
            linear = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
            return torch.cat([linear, torch.zeros(2, 1)], dim=1).expand(count, 2, 3)

    images = torch.rand(2, 1, 32, 32)
    turned = Fixed()(images, torch.Generator())
    for angle in (10.0, -10.0):
        theirs = their.affine(images, angle, [0, 0], 1.0, [0, 0], InterpolationMode.BILINEAR, fill=1.0)
        equal = (turned - theirs)[..., 8:24, 8:24].abs().max() < 1e-4  # the border's paper is blended otherwise
        if equal:
            break
    assert equal, "neither way round"
    transform = affine_and_elastic(size=32, rotation=15, shear=0.25, scale=0.2, shift=0.08, elastic=0.025)
    torch.manual_seed(0)
    fields = [transform.transforms[1].make_params([images])["displacement"] for _ in range(40)]
    assert torch.stack(fields).std().item() / 2 == pytest.approx(
        0.025, rel=0.3
    )  # their sides are 2 long; more at borders


def test_flops_by_hand() -> None:
    """Each convolution costs 2 x 9 x inputs x outputs x pixels forward; twice that again backward, but for the first
    layer's, whose pictures need no gradient."""
    from benchmarks.figures.peak import convolution_flops

    one, rest = 18 * 1 * 64 * 28**2, [18 * 64 * 64 * side**2 for side in (14, 7, 3)]
    assert convolution_flops(5) == 5 * (2 * one + 3 * sum(rest))


def test_contestants_take_turns_and_warm_ups_do_not_count() -> None:
    turns = []
    contestants = {name: Contestant(lambda units, name=name: turns.append((name, units)), 3) for name in "ab"}
    samples = race(contestants, rounds=2)
    assert turns == [("a", 3), ("b", 3)] * 3
    assert {name: len(values) for name, values in samples.items()} == {"a": 2, "b": 2}


def test_ratios_are_medians_of_the_rounds() -> None:
    samples = {"fsl": [1.0, 2.0, 1.0], "other": [4.0, 6.0, 100.0]}
    assert ratio(samples, "other", "fsl") == 4.0
    figure = speedup("x", samples, against="other", target=4.5)
    assert (figure.value, figure.reached) == (4.0, False)
    below = Figure("x", "fsl", "other", samples, "s", 1.02, "x", 1.03, at_least=False)
    assert below.reached
    assert Figure("x", "fsl", "other", samples, "s", 1.02, "x").reached is None
    assert [amount(value, "s") for value in (2.5, 0.0125, 3e-5)] == ["2.5 s", "12.5 ms", "30 µs"]


def test_pictures_of_noise_are_a_store_like_any_other(tmp_path: Path) -> None:
    path = large_store.written(2_000, tmp_path)
    stamp = (path / "pixels.npy").stat().st_mtime_ns
    source = large_store.Noise(count=2_000)
    store = open_store(source, image_size=large_store.SIZE, channels=1, cache=tmp_path)
    assert store.path == path  # as it is, and not decoded again
    assert store.pixels.shape == (2_000, 1, 28, 28)
    for i in (0, 1, 1_999):
        assert (store.pixels[i, 0] == np.asarray(source.image(i))).all()
    assert len({picture.tobytes() for picture in store.pixels}) == 2_000
    assert store.labels.tolist() == [i // 20 for i in range(2_000)]
    assert (path / "pixels.npy").stat().st_mtime_ns == stamp
    assert Square(large_store.SIZE, channels=1).label in path.name


def test_small_groups_are_filled_up_with_other_classes() -> None:
    from benchmarks.figures.drawing import SIZES, SMALL_GROUP, filled_batches, table_of

    for n_classes, n_images in list(SIZES.values())[::2]:
        sampler = filled_batches(table_of(n_classes, n_images, n_classes // SMALL_GROUP))
        assert len(np.unique(sampler[0].labels)) == sampler.n_classes
        assert len(np.unique(sampler[0].groups)) > sampler.n_groups


def test_a_quick_run_keeps_every_sample(tmp_path: Path) -> None:
    kept = tmp_path / "bench.json"
    answer = run_script("bench", "mining", "drawing", "--quick", "--threads", "1", "--out", kept)
    assert answer.returncode == 0, answer.stderr
    content = json.loads(kept.read_text())
    assert content["environment"]["threads"] == 1
    assert content["environment"]["processor"]
    assert content["environment"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert len(content["figures"]) == 10
    for figure in content["figures"]:
        assert {"name", "ours", "against", "value", "target", "reached"} <= figure.keys()
        assert figure["reached"] in (True, False)
        assert {figure["ours"], figure["against"]} <= figure["samples"].keys() == figure["medians"].keys()
        assert all(len(samples) == 2 and min(samples) > 0 for samples in figure["samples"].values())
        one, other = figure["samples"][figure["ours"]], figure["samples"][figure["against"]]
        ratios = [b / a if figure["at_least"] else a / b for a, b in zip(one, other, strict=True)]
        assert figure["value"] == pytest.approx(sum(ratios) / 2)
    again = run_script("bench", "--from", kept, "--markdown")
    assert again.returncode in (0, 1)
    assert again.stdout.count("\n| ") == 11
    assert Record.read(kept).figures[0].as_json() == content["figures"][0]


def test_figures_are_found_and_others_refused() -> None:
    assert {"training", "evaluation", "growth"} <= set(available_figures())
    answer = run_script("bench", "trainning", "--quick")
    assert answer.returncode == 2
    assert "choose of" in answer.stderr


def test_places_that_are_not_there_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    for words in (("mining", "--quick", "--out", tmp_path / "nowhere" / "b.json"), ("--from", tmp_path / "b.json")):
        answer = run_script("bench", *words)
        assert answer.returncode == 2
        assert "there is no such" in answer.stderr
        assert "Traceback" not in answer.stderr


def test_weights_are_copied_in_order() -> None:
    ours = Conv4Strided(facts(16), widths=(8, 8)).eval()
    plain = networks.with_weights_of(networks.conv4_strided((8, 8)), ours)
    images = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(plain(images), ours(images))
    assert not plain.training
    assert functional.mse_loss(plain(images), networks.conv4_strided((8, 8)).eval()(images)) > 0
