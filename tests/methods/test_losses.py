"""Losses that several methods share, against the definition as loops.

Shapes: B images.
"""

import math

import pytest
import torch

from fewshot_runner.methods.losses import one_shot_loss


def slow(similarity: list[list[float]], labels: list[int]) -> float:
    """A query and one support image of its class against, of each other class, the mean weight of its images."""
    losses = []
    for q, label in enumerate(labels):
        others = sum(
            sum(math.exp(similarity[q][s]) for s, other in enumerate(labels) if other == c) / labels.count(c)
            for c in set(labels) - {label}
        )
        for s, other in enumerate(labels):
            if other == label and s != q:
                right = math.exp(similarity[q][s])
                losses.append(-math.log(right / (right + others)))
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2], [4, 0, 4, 4, 0, 7, 7], [3, 1, 1], [0, 1, 2]])
def test_the_loss_is_that_of_every_one_shot_episode_of_the_batch(labels: list[int]) -> None:
    similarity = 3 * torch.randn(len(labels), len(labels), generator=torch.Generator().manual_seed(0)).double()
    loss = one_shot_loss(similarity, torch.tensor(labels))
    assert loss.item() == pytest.approx(slow(similarity.tolist(), labels), rel=1e-6)


def test_two_classes_of_equal_images_are_a_coin() -> None:
    assert one_shot_loss(torch.zeros(5, 5), torch.tensor([0, 0, 1, 1, 1])).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [0, 0, 1]])
def test_batches_without_a_pair_or_without_others_have_finite_gradients(labels: list[int]) -> None:
    similarity = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = one_shot_loss(similarity, torch.tensor(labels))
    loss.backward()
    assert similarity.grad.isfinite().all()
    assert (loss.item() == 0) == (labels != [0, 0, 1])


def test_a_raised_similarity_of_one_class_lowers_the_loss() -> None:
    similarity = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    one_shot_loss(similarity, labels).backward()
    same = labels[:, None] == labels
    assert (similarity.grad[same & ~torch.eye(6, dtype=torch.bool)] < 0).all()
    assert (similarity.grad[~same] > 0).all()
    assert (similarity.grad.diagonal() == 0).all()  # an image and itself make no pair
