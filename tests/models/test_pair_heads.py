"""The heads over pairs of embeddings, against loops over single numbers."""

import pytest
import torch
from torch import Tensor, nn

from fewshot_runner.models import pair_heads
from fewshot_runner.models.pair_heads import DifferenceMlp, SignedL1, WeightedL1

D = 5
HEADS = [WeightedL1, SignedL1, lambda features: DifferenceMlp(features, 3)]


def seeded(head: nn.Module, *, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Random weights of either sign, so that no value the head starts from hides a mistake."""
    generator = torch.Generator().manual_seed(0)
    for parameter in head.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=dtype)
    return head


def slow_logit(head: nn.Module, first: Tensor, second: Tensor) -> float:
    differences = [abs(a - b) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    match head:
        case WeightedL1():
            weights = [abs(weight) for weight in head.weight.tolist()]
            return head.threshold.item() - sum(w * d for w, d in zip(weights, differences, strict=True))
        case SignedL1():
            return head.bias.item() + sum(w * d for w, d in zip(head.weight.tolist(), differences, strict=True))
        case DifferenceMlp():
            into, _, out = head.layers
            units = [
                max(0.0, bias + sum(w * d for w, d in zip(row, differences, strict=True)))
                for row, bias in zip(into.weight.tolist(), into.bias.tolist(), strict=True)
            ]
            return out.bias.item() + sum(w * u for w, u in zip(out.weight[0].tolist(), units, strict=True))


@pytest.mark.parametrize("make", HEADS)
def test_pairs_and_all_pairs_equal_the_slow_loop(make, monkeypatch):
    monkeypatch.setattr(pair_heads, "ROWS_AT_ONCE", 16)  # so that chunks end in the middle
    head = seeded(make(D))
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(2, n, D, generator=generator, dtype=torch.float64) for n in (7, 4))
    expected = torch.tensor(
        [[[slow_logit(head, a, b) for b in second[e]] for a in first[e]] for e in range(2)], dtype=torch.float64
    )
    torch.testing.assert_close(head.all_pairs(first, second), expected)
    torch.testing.assert_close(head.all_pairs(first[0], second[0]), expected[0])  # without episodes
    torch.testing.assert_close(head(first[:, :4], second), expected[:, :4].diagonal(dim1=1, dim2=2))


@pytest.mark.parametrize("make", HEADS)
def test_the_gradients_of_both_ways_agree(make):
    head = seeded(make(D))
    generator = torch.Generator().manual_seed(2)
    first, second, weights = (torch.randn(6, n, generator=generator, dtype=torch.float64) for n in (D, D, 6))
    first.requires_grad_()
    wanted = [first, *head.parameters()]
    one = torch.autograd.grad((head.all_pairs(first, second) * weights).sum(), wanted)
    other = torch.autograd.grad((head(first[:, None], second) * weights).sum(), wanted)
    for a, b in zip(one, other, strict=True):
        assert a.abs().sum() > 0
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
@pytest.mark.parametrize("make", HEADS)
def test_the_pairs_within_one_set_are_all_its_pairs(make, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(pair_heads, "ROWS_AT_ONCE", 16)
    head = seeded(make(D), dtype=dtype)
    generator = torch.Generator().manual_seed(3)
    features, weights = (torch.randn(7, n, generator=generator, dtype=dtype) for n in (D, 7))
    features.requires_grad_()
    wanted = [features, *head.parameters()]
    logits, expected = head.pairs_within(features), head(features[:, None], features)
    torch.testing.assert_close(logits, expected, rtol=tolerance, atol=tolerance)
    for a, b in zip(
        torch.autograd.grad((logits * weights).sum(), wanted),
        torch.autograd.grad((expected * weights).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("sign", [-1, 1])
def test_signed_weights_may_all_have_one_sign(sign):
    head = seeded(SignedL1(D))
    head.weight.data = sign * head.weight.data.abs()
    first, second = torch.eye(D, dtype=torch.float64), torch.zeros(1, D, dtype=torch.float64)
    torch.testing.assert_close(head.all_pairs(first, second)[:, 0], head.bias + head.weight)


def test_initial_values_of_kochs_head():
    torch.manual_seed(0)
    heads = [SignedL1(4096) for _ in range(30)]
    assert sum(parameter.numel() for parameter in heads[0].parameters()) == 4097
    weights, biases = torch.cat([head.weight for head in heads]), torch.stack([head.bias for head in heads])
    assert abs(weights.mean()) < 0.004  # six standard errors of 122,880 values
    assert abs(weights.std() - 0.2) < 0.003
    assert abs(biases.mean() - 0.5) < 0.011
    assert 0.004 < biases.std() < 0.02


def test_a_hidden_layer_never_sees_more_than_so_many_differences(monkeypatch):
    monkeypatch.setattr(pair_heads, "ROWS_AT_ONCE", 20)
    seen = []
    head = DifferenceMlp(D, 3)
    head.layers[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape[:-1].numel()))
    head.all_pairs(torch.zeros(33, D), torch.zeros(6, D))
    assert seen == [18] * 11
    seen.clear()
    head.all_pairs(torch.zeros(2, 3, D), torch.zeros(2, 6, D))  # two episodes: one row of each at a time
    assert seen == [12] * 3
    seen.clear()
    head.all_pairs(torch.zeros(2, D), torch.zeros(50, D))  # one row at least
    assert seen == [50] * 2
