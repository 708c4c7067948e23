"""Siamese networks against the definition, written as loops.

Shapes: B images, D features, P pairs.
"""

import math
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewshot_runner.data.batch import Batch
from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.samplers import PairSampler, PKSampler
from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.methods.siamese import Siamese, balanced_loss
from fewshot_runner.models.pair_heads import WeightedL1
from fewshot_runner.models.pixels import Pixels

D = 5


class Identity(nn.Module):
    """Images that are features already, (B, D)."""

    out_features = D

    def forward(self, images: Tensor) -> Tensor:
        return images


def learner(hidden: int = 0, *, dtype: torch.dtype = torch.float) -> Siamese:
    """With random weights of either sign, so that no value the head starts from hides a mistake."""
    random = torch.Generator().manual_seed(0)
    method = Siamese(Identity(), hidden=hidden)
    for parameter in method.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random, dtype=dtype)
    return method


def slow_logit(method: Siamese, first: Tensor, second: Tensor) -> float:
    """By hand: what two embeddings differ by, feature by feature, in Koch's weighted sum or in two plain layers."""
    values = [abs(a - b) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    if isinstance(method.head, WeightedL1):
        weights = [abs(weight) for weight in method.head.weight.tolist()]
        return method.head.threshold.item() - sum(w * v for w, v in zip(weights, values, strict=True))
    into, out = method.head.layers[0], method.head.layers[2]
    rows = zip(into.weight.tolist(), into.bias.tolist(), strict=True)
    units = [max(0.0, bias + sum(w * v for w, v in zip(weights, values, strict=True))) for weights, bias in rows]
    return out.bias.item() + sum(w * u for w, u in zip(out.weight[0].tolist(), units, strict=True))


def surprise(logit: float, same: bool) -> float:
    probability = 1 / (1 + math.exp(-logit))
    return -math.log(probability if same else 1 - probability)


def slow_balanced(logits: list[float], labels: list[tuple[int, int]], groups: list[tuple[int, int]]) -> float:
    """Half of the weight on same-class pairs; of the other half, equal parts for pairs within and across groups."""
    kinds: dict[str, list[float]] = {"same": [], "near": [], "far": []}
    for logit, (a, b), (g, h) in zip(logits, labels, groups, strict=True):
        kind = "same" if a == b else "near" if g == h else "far"
        kinds[kind].append(surprise(logit, a == b))
    mean = {kind: sum(values) / len(values) for kind, values in kinds.items() if values}
    different = [mean[kind] for kind in ("near", "far") if kind in mean]
    halves = [mean["same"]] if "same" in mean else []
    halves += [sum(different) / len(different)] if different else []
    return sum(halves) / len(halves)


@pytest.mark.parametrize("hidden", [0, 7])
@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 1, 2], [2, 0, 1, 2, 2, 1]])
def test_score_is_the_mean_logit_over_a_classs_examples(hidden: int, labels: list[int]) -> None:
    random = torch.Generator().manual_seed(0)
    method = learner(hidden)
    support = torch.randn(2, 6, D, generator=random)
    query = torch.randn(2, 4, D, generator=random)
    support_labels = torch.tensor([labels, labels[::-1]])

    logits = method.score(support, support_labels, query, 3)

    assert logits.shape == (2, 4, 3)
    for e in range(2):
        for q in range(4):
            for n in range(3):
                of_class = [s for s in range(6) if support_labels[e, s] == n]
                each = [slow_logit(method, query[e, q], support[e, s]) for s in of_class]
                assert logits[e, q, n].item() == pytest.approx(sum(each) / len(each), rel=1e-4)


def test_score_is_the_mean_probability_where_that_is_asked_for() -> None:
    """Logits 10 and -1 against 3 and 3: their mean is the higher, their mean probability the lower."""
    method = Siamese(Identity(), mean_of="probabilities")
    logits = torch.tensor([[[10.0, -400.0], [-1.0, -350.0], [3.0, -300.0], [3.0, -250.0]]])  # (E, S, Q)
    method.head.all_pairs = lambda support, query: logits
    labels = torch.tensor([[0, 0, 1, 1]])
    scores = method.score(torch.zeros(1, 4, D), labels, torch.zeros(1, 2, D), 2)  # (E, Q, N)

    def probability(logit: float) -> float:
        return 1 / (1 + math.exp(-logit))

    means = [(probability(10) + probability(-1)) / 2, probability(3)]
    assert scores[0, 0].exp().tolist() == pytest.approx(means, rel=1e-6)
    assert scores[0, 0].argmax() == 1
    assert scores[0, 1].tolist() == pytest.approx([-350 - math.log(2), -250 - math.log(2)], rel=1e-6)


def test_probabilities_next_to_one_are_told_apart() -> None:
    """Rounded, all would be 1: three classes of one image, two of two."""
    method = Siamese(Identity(), mean_of="probabilities")
    logits = torch.tensor([[[60.0], [54.0], [45.0], [70.0], [40.0], [70.0], [40.0]]])  # (E, S, Q)
    method.head.all_pairs = lambda support, query: logits
    labels = torch.tensor([[0, 1, 2, 3, 3, 4, 4]])
    scores = method.score(torch.zeros(1, 7, D), labels, torch.zeros(1, 1, D), 5)[0, 0]
    expected = [-math.exp(-60), -math.exp(-54), -math.exp(-45), *[-math.exp(-40) / 2] * 2]
    assert scores.tolist() == pytest.approx(expected, rel=1e-5)
    assert scores[3] == scores[4]


def test_an_unknown_mean_is_refused() -> None:
    with pytest.raises(UserError, match="mean_of=median: choose logits or probabilities"):
        Siamese(Identity(), mean_of="median")


def test_chosen_negatives_count_as_they_were_chosen() -> None:
    """A sampler's share of negatives within a group is the share of the loss that they have."""
    method = learner()
    images = torch.randn(12, D, generator=torch.Generator().manual_seed(3))
    labels, groups = torch.arange(12), torch.tensor([0] * 6 + [1] * 6)
    chosen = [(0, 1), (2, 3), (4, 5), (0, 6)]  # three within a group, one across
    loss = method.loss(Batch(images, labels, groups, pairs=torch.tensor(chosen)))
    expected = sum(surprise(slow_logit(method, images[i], images[j]), False) for i, j in chosen) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("hidden", [0, 7])
def test_a_pair_has_no_order(hidden: int) -> None:
    first, second = torch.randn(2, 9, D, generator=torch.Generator().manual_seed(1))
    head = learner(hidden).head
    assert torch.equal(head(first, second), head(second, first))


def test_nothing_is_more_like_an_image_than_itself() -> None:
    """A weighted distance stays one whatever sign the weights are trained to."""
    head = learner().head
    first, second = torch.randn(2, 9, D, generator=torch.Generator().manual_seed(1))
    assert (head.weight < 0).any()
    assert (head(first, first) > head(first, second)).all()


@pytest.mark.parametrize(
    ("labels", "groups"),
    [
        ([0, 0, 1, 1, 2, 3, 3], [0, 0, 0, 0, 1, 1, 1]),
        ([0, 0, 1, 1, 2], [0, 0, 0, 0, 0]),  # no pair across groups
        ([0, 0, 1, 1, 2], [0, 0, 1, 1, 2]),  # no different classes within a group
        ([0, 1, 2, 3], [0, 0, 1, 1]),  # no same-class pair
        ([0, 0, 0], [0, 0, 0]),  # same-class pairs alone
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.double, 1e-10), (torch.float, 1e-4)])
@pytest.mark.parametrize("hidden", [0, 7])
def test_loss_over_all_pairs_equals_the_definition(
    labels: list[int], groups: list[int], hidden: int, dtype: torch.dtype, tolerance: float
) -> None:
    """Its gradients are those of the head at one pair after the other."""
    images = torch.randn(len(labels), D, generator=torch.Generator().manual_seed(1), dtype=dtype).requires_grad_()
    method = learner(hidden, dtype=dtype)
    pairs = list(combinations(range(len(labels)), 2))
    expected = slow_balanced(
        [slow_logit(method, images[i], images[j]) for i, j in pairs],
        [(labels[i], labels[j]) for i, j in pairs],
        [(groups[i], groups[j]) for i, j in pairs],
    )
    batch = Batch(images, torch.tensor(labels), torch.tensor(groups))
    loss = method.loss(batch)
    assert loss.item() == pytest.approx(expected, rel=tolerance)
    logits = torch.stack([method.head(images[i], images[j]) for i, j in pairs])
    same, same_group = (torch.stack([of[i] == of[j] for i, j in pairs]) for of in (batch.labels, batch.groups))
    wanted = [images, *method.head.parameters()]
    slow = torch.autograd.grad(balanced_loss(logits, same, same_group), wanted)
    for gradient, other in zip(torch.autograd.grad(loss, wanted), slow, strict=True):
        torch.testing.assert_close(gradient, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("one_shot", [0.0, 0.5])
def test_an_image_alone_makes_no_pair_and_costs_nothing(one_shot: float) -> None:
    method = Siamese(Identity(), one_shot=one_shot)
    batch = Batch(torch.randn(1, D), torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    loss = method.loss(batch)
    assert loss.item() == 0
    loss.backward()
    assert all(not parameter.grad.any() for parameter in method.parameters())


def test_loss_over_chosen_pairs_looks_at_no_others() -> None:
    labels, groups = [0, 0, 1, 1, 2, 3], [0, 0, 0, 0, 1, 1]
    pairs = [(0, 1), (2, 3), (0, 2), (1, 5), (4, 5)]
    images = torch.randn(6, D, generator=torch.Generator().manual_seed(1))
    method = learner()
    expected = slow_balanced(
        [slow_logit(method, images[i], images[j]) for i, j in pairs],
        [(labels[i], labels[j]) for i, j in pairs],
        [(groups[i], groups[j]) for i, j in pairs],
    )
    loss = method.loss(Batch(images, torch.tensor(labels), torch.tensor(groups), pairs=torch.tensor(pairs)))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_balanced_loss_by_hand() -> None:
    """Logit 0 has surprise log 2, either way; a different-class pair that is surely wrong weighs a quarter of all."""
    logits = torch.tensor([0.0, 0.0, 2.0, 10.0], dtype=torch.double)
    same = torch.tensor([True, True, False, False])
    same_group = torch.tensor([True, True, True, False])
    near, far = math.log(1 + math.exp(2)), math.log(1 + math.exp(10))  # 2.1269280 and 10.0000454
    expected = 0.5 * math.log(2) + 0.25 * near + 0.25 * far
    assert balanced_loss(logits, same, same_group).item() == pytest.approx(expected, rel=1e-12)


# Two alphabets of two characters with three drawings each: every class and group of equal size. The alphabets lie
# apart, so that pairs across them cost less than pairs within one.
TABLE = ClassTable.build(np.arange(4).repeat(3), ["a/1", "a/2", "b/1", "b/2"], ["a", "a", "b", "b"], keep=np.arange(12))
FEATURES = torch.randn(12, D, generator=torch.Generator().manual_seed(2)) + torch.arange(12)[:, None] // 6


def plain_mean(method: Siamese, batch: Batch) -> float:
    """Of the cross-entropies of the pairs that the sampler chose, none weighing more than another."""
    first, second = batch.pairs.unbind(1)
    logits = method.head(batch.images[first], batch.images[second])
    same = (batch.labels[first] == batch.labels[second]).float()
    return nn.functional.binary_cross_entropy_with_logits(logits, same).item()


def test_all_pairs_cost_what_pairs_drawn_at_random_cost_on_average() -> None:
    """The claim of the module's head: the all-pairs loss is the expectation of a balanced pair sampler's."""
    method = learner()
    method.head.weight.data.fill_(0.5)
    method.head.threshold.data.fill_(4.0)  # so that the three kinds of pair cost about 0.3, 1.4 and 1.0
    everything = PKSampler(TABLE, n_classes=4, n_images=3, seed=0)[0]
    with torch.no_grad():
        whole = method.loss(everything.map(FEATURES.__getitem__)).item()
        sampler = PairSampler(TABLE, n_pairs=400, seed=0)
        draws = np.array([plain_mean(method, sampler[k].map(FEATURES.__getitem__)) for k in range(200)])
    error = draws.std(ddof=1) / math.sqrt(len(draws))
    assert error < 0.01 * whole
    assert abs(draws.mean() - whole) < 4 * error


def test_a_pair_batch_costs_the_plain_mean_over_its_pairs() -> None:
    """Half same, a quarter within and a quarter across groups already: the balance changes nothing."""
    method = learner()
    batch = PairSampler(TABLE, n_pairs=8, seed=3)[0]
    images = FEATURES[batch.images]
    each = [
        surprise(slow_logit(method, images[i], images[j]), bool(batch.labels[i] == batch.labels[j]))
        for i, j in batch.pairs.tolist()
    ]
    assert method.loss(batch.map(FEATURES.__getitem__)).item() == pytest.approx(sum(each) / 8, rel=1e-4)


def test_the_head_takes_what_the_backbone_gives() -> None:
    assert sum(p.numel() for p in learner().parameters()) == D + 1
    assert sum(p.numel() for p in learner(7).parameters()) == 7 * D + 7 + 7 + 1


def test_a_negative_number_of_units_is_refused() -> None:
    with pytest.raises(UserError, match=r"hidden=-1"):
        Siamese(SimpleNamespace(out_features=3), hidden=-1)


def test_the_one_shot_loss_stands_beside_that_of_all_pairs() -> None:
    batch = PKSampler(TABLE, n_classes=4, n_images=3, seed=0)[0].map(FEATURES.__getitem__)
    plain, both = learner(), learner()
    both.one_shot = 0.5
    logits = [[slow_logit(plain, a, b) for b in batch.images] for a in batch.images]
    labels, losses = batch.labels.tolist(), []
    for q, s in combinations_both_ways(len(labels)):
        if labels[q] == labels[s]:
            others = sum(math.exp(logits[q][o]) / 3 for o in range(12) if labels[o] != labels[q])  # 3 images a class
            losses.append(math.log(1 + others / math.exp(logits[q][s])))
    expected = plain.loss(batch).item() + 0.5 * sum(losses) / len(losses)
    assert both.loss(batch).item() == pytest.approx(expected, rel=1e-4)


def combinations_both_ways(count: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(count) for b in range(count) if a != b]


def test_a_signed_head_takes_differences_for_either_answer() -> None:
    """A linear layer over absolute differences: weights keep their sign, in single pairs and in all pairs."""
    method = Siamese(Identity(), signed=True)
    weights = [0.5, -1.0, 2.0, 0.0, -0.25]
    method.head.weight.data, method.head.bias.data = torch.tensor(weights), torch.tensor(0.75)
    first, second = torch.randn(2, 6, D, generator=torch.Generator().manual_seed(1))
    support_labels = torch.tensor([[0, 1, 0, 1, 1, 0]])
    logits = method.score(first[None], support_labels, second[None], 2)[0]
    for q in range(6):
        each = [0.75 + sum(w * abs(float(a) - float(b)) for w, a, b in zip(weights, first[s], second[q], strict=True))
                for s in range(6)]  # fmt: skip
        for n in range(2):
            of_class = [each[s] for s in range(6) if support_labels[0, s] == n]
            assert logits[q, n].item() == pytest.approx(sum(of_class) / 3, rel=1e-4, abs=1e-5)
    assert max(method.head(first, first).tolist()) < method.head(first, second).max()  # unlike a distance


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"signed": True, "hidden": 4}, r"signed=true.*hidden=0 \(now 4\)"),
        ({"one_shot": -1.0}, r"one_shot=-1\.0"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Siamese(Identity(), **options)


def test_the_one_shot_loss_is_refused_where_pairs_are_chosen() -> None:
    zeros = torch.zeros(4, dtype=torch.long)
    chosen = Batch(torch.zeros(4, 1, 4, 4), zeros, zeros, pairs=torch.tensor([[0, 1], [2, 3]]))
    facts = Facts(image_shape=(1, 4, 4), n_classes=2, n_way=2)
    with pytest.raises(UserError, match=r"method\.learner\.one_shot=0\.5.*one_shot=0, or method=siamese"):
        Siamese(Pixels(facts), one_shot=0.5).check_item(chosen)
    Siamese(Pixels(facts), one_shot=0.5).check_item(replace(chosen, pairs=None))
    Siamese(Pixels(facts)).check_item(chosen)
