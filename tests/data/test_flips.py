"""Mirror images against numpy."""

import numpy as np
import pytest
import torch
from scipy import stats

from fewshot_runner.data.flips import HorizontalFlip
from fewshot_runner.errors import UserError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 1.0])
def test_each_image_for_itself_is_mirrored_with_the_given_probability(probability):
    images = torch.rand(1500, 2, 3, 4, generator=generator(5))
    flipped = HorizontalFlip(probability=probability)(images, generator())
    mirrored = [
        np.array_equal(one, other[..., ::-1]) for one, other in zip(flipped.numpy(), images.numpy(), strict=True)
    ]
    kept = [torch.equal(one, other) for one, other in zip(flipped, images, strict=True)]
    assert all(one != other for one, other in zip(mirrored, kept, strict=True))
    assert stats.binomtest(sum(mirrored), 1500, probability).pvalue > 1e-4
    assert torch.equal(flipped, HorizontalFlip(probability=probability)(images, generator()))


def test_trap_17_equal_images_of_a_batch_come_out_different():
    image = torch.rand(1, 3, 4, 4, generator=generator(5))
    flipped = HorizontalFlip()(image.repeat(20, 1, 1, 1), generator())
    assert len({one.numpy().tobytes() for one in flipped}) == 2


def test_an_impossible_probability_is_refused():
    with pytest.raises(UserError, match="probability=-1: give a number from 0 to 1"):
        HorizontalFlip(probability=-1)
