"""Where one embedding is all that there is, every query is a tie of all classes, and no rounding error decides it.

Shapes: N ways, K shots, D features.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fewshot_runner.engine.metrics import query_accuracy
from fewshot_runner.facts import Facts
from fewshot_runner.methods.anil import Anil
from fewshot_runner.methods.base import EmbeddingMethod, class_means, round_logits
from fewshot_runner.methods.contrastive import Contrastive
from fewshot_runner.methods.finetune import Finetune
from fewshot_runner.methods.prototypical import Prototypical
from fewshot_runner.methods.siamese import Siamese
from fewshot_runner.methods.triplet import Triplet

FACTS = Facts(image_shape=(1, 4, 4), n_classes=3, n_way=3)


class Backbone(nn.Module):
    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.out_features = out_features


BY_SUPPORT: dict[str, Callable[[Backbone], EmbeddingMethod]] = {
    "prototypical": lambda backbone: Prototypical(backbone, distance="euclidean"),
    "prototypical cosine": lambda backbone: Prototypical(backbone, distance="cosine"),
    "finetune": lambda backbone: Finetune(FACTS, backbone),
    "siamese": Siamese,
    "siamese signed": lambda backbone: Siamese(backbone, signed=True),
    "siamese hidden": lambda backbone: Siamese(backbone, hidden=16),
    "siamese hidden, wide": lambda backbone: Siamese(backbone, hidden=256),
    "siamese probabilities": lambda backbone: Siamese(backbone, mean_of="probabilities"),
    "contrastive": lambda backbone: Contrastive(backbone, distance="l2", margin=1.0),
    "triplet": Triplet,
}


def earned(method: EmbeddingMethod, features: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """What each of three queries a class earns where all images have the same `features` (D,)."""
    with torch.no_grad():
        support, query = (features.repeat(1, count, 1) for count in (len(labels), 3 * n_way))
        logits = method.score(support, labels[None], query, n_way)
    assert logits.dtype == features.dtype
    return query_accuracy(logits, torch.arange(n_way).repeat(3)[None])


@pytest.mark.parametrize("name", BY_SUPPORT)
@pytest.mark.parametrize("width", [64, 250, 1280])
def test_trap_01_shots_of_any_number_are_a_tie(name: str, width: int) -> None:
    torch.manual_seed(0)
    method = BY_SUPPORT[name](Backbone(width)).eval()
    for n_way in (2, 3, 5, 20):
        for n_shot in (1, 3, 5, 7):
            labels = torch.cat([torch.arange(n_way).repeat_interleave(n_shot), torch.tensor([0, 0, 1])])
            answers = earned(method, torch.randn(width).relu(), labels, n_way)
            torch.testing.assert_close(answers, torch.full_like(answers, 1 / n_way), rtol=0, atol=0)


@pytest.mark.parametrize("width", [64, 256, 1280])
def test_trap_01_steps_on_equal_shots_are_a_tie(width: int) -> None:
    """At this length of embedding, the default rate makes what rounding adds a hundred times as large a step."""
    torch.manual_seed(0)
    for n_way in (2, 3, 5, 20):
        for n_shot in (1, 3, 5, 7):
            labels = torch.arange(n_way).repeat_interleave(n_shot)
            answers = earned(Anil(Backbone(width)), torch.randn(width).relu(), labels, n_way)
            torch.testing.assert_close(answers, torch.full_like(answers, 1 / n_way), rtol=0, atol=0)


@pytest.mark.parametrize("name", BY_SUPPORT)
def test_trap_01_an_embedding_of_zeros_is_a_tie_of_equal_shots(name: str) -> None:
    """That of a network whose last ReLU is dead, beside shots that are alike or dead as well."""
    torch.manual_seed(0)
    method = BY_SUPPORT[name](Backbone(64)).eval()
    labels = torch.arange(5).repeat_interleave(3)[None]
    for shot in (torch.zeros(64), torch.randn(64)):
        with torch.no_grad():
            logits = method.score(shot.repeat(1, 15, 1), labels, torch.zeros(1, 10, 64), 5)
        torch.testing.assert_close(logits.amax(dim=-1), logits.amin(dim=-1), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["prototypical", "prototypical cosine", "triplet", "contrastive"])
def test_trap_01_two_equal_classes_among_others_are_a_tie(name: str) -> None:
    torch.manual_seed(0)
    method = BY_SUPPORT[name](Backbone(250)).eval()
    for n_way in (3, 5, 20):
        support = torch.randn(1, n_way, 250)
        support[:, -1] = support[:, 0]
        with torch.no_grad():
            logits = method.score(support, torch.arange(n_way)[None], torch.randn(1, 40, 250), n_way)
        assert torch.equal(logits[..., 0], logits[..., -1])
        assert not torch.equal(logits[..., 0], logits[..., 1])


SMALL: dict[str, Callable[[float], EmbeddingMethod]] = {
    "anil": lambda size: Anil(Backbone(64), inner_lr=size),
    "finetune": lambda size: Finetune(FACTS, Backbone(64), fit_l2=1 / size),
}


@pytest.mark.parametrize("size", [1e-1, 1e-4, 1e-9])
@pytest.mark.parametrize("name", SMALL)
def test_small_steps_make_small_logits_and_no_ties(name: str, size: float) -> None:
    torch.manual_seed(0)
    centres = 3 * torch.randn(5, 64)
    support, query = (centres.repeat(1, count, 1) + torch.randn(1, 5 * count, 64) for count in (2, 20))
    labels = torch.arange(5).repeat(2)[None]
    with torch.no_grad():
        logits = SMALL[name](size).score(support, labels, query, 5)
    answers = query_accuracy(logits, torch.arange(5).repeat(20)[None])
    torch.testing.assert_close(answers, torch.ones_like(answers), rtol=0, atol=0)


def test_noise_is_a_tie_and_a_difference_is_none() -> None:
    logits = round_logits(torch.tensor([[5.0, 5.0 + 5e-6, 5.0 - 5e-6], [1.0, 1.0001, 1.0]]), 2**-16)
    assert logits[0].tolist() == [0, 0, 0]
    assert logits[1, 1] > logits[1, 0] == logits[1, 2]
    large = torch.tensor([[3.0, -1.0, -2.0]])
    torch.testing.assert_close(round_logits(large, 2**-16), large, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n_images", [1, 2, 3, 5, 7, 11, 1000])
def test_the_mean_of_equal_embeddings_is_that_embedding(n_images: int) -> None:
    """To the bit, and beside a class of another size."""
    torch.manual_seed(0)
    features = torch.randn(40) * torch.logspace(-6, 6, 40)
    labels = torch.tensor([[0] * n_images + [1] * 4])
    means = class_means(features.repeat(1, n_images + 4, 1), labels, 2)
    assert torch.equal(means, features.repeat(1, 2, 1))


def test_means_of_a_large_support_are_those_of_its_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few images at a time, which does not divide the support."""
    monkeypatch.setattr("fewshot_runner.methods.base.SUMMED_AT_ONCE", 7)
    random = torch.Generator().manual_seed(0)
    features, labels = torch.randn(2, 30, 5, generator=random), torch.arange(30).repeat(2, 1) % 4
    means = class_means(features, labels, 4)
    for e in range(2):
        for k in range(4):
            torch.testing.assert_close(means[e, k], features[e][labels[e] == k].mean(dim=0))
