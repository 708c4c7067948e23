"""The last step before the network: standardising against torchvision, centring against scipy."""

import pytest
import torch
from scipy import ndimage
from torchvision.transforms.functional import normalize

from fewshot_runner.data.transforms import Standardise, centred
from fewshot_runner.errors import UserError


def test_standardising_equals_torchvision():
    images = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    mean, std = [0.1, 0.5, 0.9], [0.2, 1.0, 3.0]
    torch.testing.assert_close(Standardise(mean=mean, std=std)(images), normalize(images, mean, std))
    torch.testing.assert_close(Standardise(mean=mean)(images), normalize(images, mean, [1.0] * 3))
    torch.testing.assert_close(Standardise(std=std)(images), normalize(images, [0.0] * 3, std))
    torch.testing.assert_close(Standardise(invert=True, mean=mean, std=std)(images), normalize(1 - images, mean, std))


def test_inverting_swaps_ink_and_paper_and_nothing_asked_is_nothing_done():
    images = torch.tensor([0.0, 1.0, 0.25]).view(1, 1, 1, 3)
    assert Standardise(invert=True)(images).ravel().tolist() == [1.0, 0.0, 0.75]
    assert torch.equal(Standardise()(images), images)
    assert images.ravel().tolist() == [0.0, 1.0, 0.25]


def test_a_deviation_of_zero_is_refused():
    with pytest.raises(UserError, match=r"std=\[1.0, 0.0\]: every channel's standard deviation must be above 0"):
        Standardise(std=[1.0, 0.0])


def drawings(*, channels: int = 1) -> torch.Tensor:
    """Three light strokes on black, off the centre, none near the border."""
    images = torch.zeros(3, channels, 20, 24)
    images[0, :, 4:9, 5:7] = 1.0
    images[1, :, 6, 8:15] = 0.6
    images[2, :, 9:12, 12:17] = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    return images


def centre_of_light(image: torch.Tensor) -> tuple[float, float]:
    """Row and column of a (C, H, W) image, by a loop."""
    total = row = column = 0.0
    for _, i, j in (image > 0).nonzero().tolist():
        light = float(image[:, i, j].sum()) / len(image)
        total, row, column = total + light, row + light * i, column + light * j
    return row / total, column / total


def test_centring_equals_scipys_shift_by_the_centre_of_mass():
    images = drawings()
    for image, moved in zip(images, centred(images), strict=True):
        row, column = ndimage.center_of_mass(image[0].numpy())
        expected = ndimage.shift(image[0].numpy(), (9.5 - row, 11.5 - column), order=1)
        torch.testing.assert_close(moved[0], torch.from_numpy(expected), atol=1e-5, rtol=0)
        assert centre_of_light(moved) == pytest.approx((9.5, 11.5), abs=1e-4)


def test_where_a_drawing_stood_makes_no_difference_once_it_is_centred():
    images = drawings()
    torch.testing.assert_close(centred(images), centred(images.roll((5, -4), dims=(2, 3))), atol=1e-5, rtol=0)


def test_the_channels_of_a_drawing_move_together():
    images = drawings(channels=3) * torch.tensor([1.0, 0.5, 0.0]).view(3, 1, 1)
    moved = centred(images)
    torch.testing.assert_close(moved[:, 1], moved[:, 0] / 2)
    assert not moved[:, 2].any()


def test_an_image_without_light_stays_and_tells_its_neighbours_nothing():
    images = drawings()
    images[1] = 0
    moved = centred(images)
    assert not moved[1].any()
    torch.testing.assert_close(moved[0], centred(drawings())[0])


def test_standardising_centres_the_ink_after_inverting_and_before_the_mean():
    ink = drawings()
    paper = 1 - ink
    torch.testing.assert_close(Standardise(invert=True, centre=True, mean=[0.5])(paper), centred(1 - paper) - 0.5)
    assert torch.equal(Standardise(invert=True)(paper), 1 - paper)


def test_mixed_precision_shows_the_network_the_same_picture():
    images = drawings()
    standardise = Standardise(centre=True, mean=[0.1], std=[0.3])
    expected = standardise(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(standardise(images), expected)
