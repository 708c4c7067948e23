"""Changes of colour against torchvision's, image by image, and against Python's own colorsys."""

import colorsys

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms.v2 import functional

from fewshot_runner.data.colour import ColourJitter, brightened, contrasted, grey, hue_turned, saturated
from fewshot_runner.errors import UserError

EACH = {
    "brightness": {"brightness": 0.4},
    "contrast": {"contrast": 0.4},
    "saturation": {"saturation": 0.4},
    "hue": {"hue": 0.2},
}
ALL = {name: value for options in EACH.values() for name, value in options.items()}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photographs(count: int, channels: int = 3) -> torch.Tensor:
    """(count, channels, 12, 9) with greys, blacks, whites and pure colours among them."""
    images = torch.rand(count, channels, 12, 9, generator=generator(7))
    images[:, :, 0] = images[:, :1, 0]
    images[:, :, 1, :2], images[:, :, 1, 2:4] = 0, 1
    images[:, :, 2] = images[:, :, 2].round()
    return images


def factors(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(brightened, functional.adjust_brightness), (contrasted, functional.adjust_contrast)],
)
def test_light_equals_torchvision_image_by_image(ours, theirs, channels):
    given = [0.0, 0.3, 1.0, 1.7]
    images = photographs(4, channels)
    for changed, image, factor in zip(ours(images, factors(*given)), images, given, strict=True):
        torch.testing.assert_close(changed, theirs(image, factor), atol=1e-6, rtol=1e-5)


def test_saturation_equals_torchvision_image_by_image():
    given = [0.0, 0.3, 1.0, 1.7]
    images = photographs(4)
    for changed, image, factor in zip(saturated(images, factors(*given)), images, given, strict=True):
        torch.testing.assert_close(changed, functional.adjust_saturation(image, factor), atol=1e-6, rtol=1e-5)


def test_hue_equals_torchvision_image_by_image():
    given = [-0.5, -0.21, 0.0, 0.1, 0.37, 0.5]
    images = photographs(6)
    for changed, image, turn in zip(hue_turned(images, factors(*given)), images, given, strict=True):
        torch.testing.assert_close(changed, functional.adjust_hue(image, turn), atol=2e-6, rtol=1e-5)


def test_hue_equals_colorsys_pixel_by_pixel():
    images = photographs(2)
    changed = hue_turned(images, factors(0.3, -0.15))
    for n, turn in enumerate((0.3, -0.15)):
        for row in range(12):
            for column in range(9):
                hue, saturation, value = colorsys.rgb_to_hsv(*images[n, :, row, column].tolist())
                expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
                assert changed[n, :, row, column].tolist() == pytest.approx(expected, abs=1e-5)


def test_grey_equals_torchvision():
    images = photographs(3)
    torch.testing.assert_close(grey(images), functional.rgb_to_grayscale(images))
    assert grey(images[:, :1]).shape == (3, 1, 12, 9)


def test_the_order_is_brightness_contrast_saturation_hue(monkeypatch):
    images = photographs(2)  # bright enough to be clipped: contrast and saturation would commute otherwise
    monkeypatch.setattr(torch, "rand", lambda *size, generator: torch.ones(*size))
    expected = functional.adjust_brightness(images, 1.4)
    expected = functional.adjust_contrast(expected, 1.3)
    expected = functional.adjust_saturation(expected, 1.2)
    expected = functional.adjust_hue(expected, 0.1)
    jitter = ColourJitter(brightness=0.4, contrast=0.3, saturation=0.2, hue=0.1)
    torch.testing.assert_close(jitter(images, generator()), expected, atol=3e-6, rtol=1e-5)


def uniform(values: np.ndarray, low: float, high: float) -> bool:
    assert values.min() >= low - 1e-4
    assert values.max() <= high + 1e-4
    return stats.kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-4


@pytest.mark.parametrize("spread", [0.4, 1.5])
def test_factors_are_uniform_and_not_below_zero(spread):
    low, high = max(0, 1 - spread), 1 + spread
    dim = torch.full((1500, 1, 2, 2), 0.2)
    assert uniform((ColourJitter(brightness=spread)(dim, generator()) / 0.2)[:, 0, 0, 0].numpy(), low, high)
    dim[..., 0] = 0.3
    changed = ColourJitter(contrast=spread)(dim, generator())[:, 0, 0]  # (1500, 2)
    assert uniform(((changed[:, 0] - changed[:, 1]) / 0.1).numpy(), low, high)
    reddish = torch.tensor([0.5, 0.4, 0.4]).view(1, 3, 1, 1).repeat(1500, 1, 1, 1)
    changed = ColourJitter(saturation=spread)(reddish, generator())[:, :, 0, 0]  # (1500, 3)
    assert uniform(((changed[:, 0] - changed[:, 1]) / 0.1).numpy(), low, high)


def test_hues_are_turned_uniformly_to_both_sides():
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).repeat(1500, 1, 1, 1)
    changed = ColourJitter(hue=0.2)(red, generator())[:, :, 0, 0]
    hue = np.array([colorsys.rgb_to_hsv(*colour)[0] for colour in changed.tolist()])
    assert uniform((hue + 0.5) % 1 - 0.5, -0.2, 0.2)


@pytest.mark.parametrize(
    "jitter",
    [*(ColourJitter(**options) for options in EACH.values()), ColourJitter(**ALL)],
    ids=[*EACH, "all"],
)
def test_trap_17_equal_images_of_a_batch_come_out_different(jitter):
    image = photographs(1)
    changed = jitter(image.repeat(12, 1, 1, 1), generator())
    assert len({one.numpy().tobytes() for one in changed}) == 12


@pytest.mark.parametrize("paper", [0.0, 1.0])
def test_trap_18_black_and_white_paper_keep_no_colour_and_no_pattern(paper):
    blank = torch.full((20, 3, 9, 9), paper)
    changed = ColourJitter(**ALL)(blank, generator())
    assert (changed == changed[:, :1, :1, :1]).all()
    dark = ColourJitter(contrast=0.5, saturation=0.5, hue=0.5)(blank, generator())
    torch.testing.assert_close(dark, blank, atol=2e-4, rtol=0)  # the shares of a grey sum to 0.9999


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_each_image_is_changed_with_the_given_probability(probability):
    images = photographs(1).repeat(1500, 1, 1, 1)
    changed = (ColourJitter(**ALL, probability=probability)(images, generator()) != images).flatten(1).any(dim=1)
    assert stats.binomtest(int(changed.sum()), 1500, probability).pvalue > 1e-4
    if 0 < probability < 1:  # else all are alike, and nothing correlates
        assert abs(np.corrcoef(changed[1:], changed[:-1])[0, 1]) < 0.1


def test_values_stay_between_0_and_1_and_what_came_in_is_left_alone():
    images = photographs(50)
    before = images.clone()
    changed = ColourJitter(brightness=1, contrast=1, saturation=1, hue=0.5)(images, generator())
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.equal(images, before)
    assert torch.equal(ColourJitter(**ALL)(images, generator(1)), ColourJitter(**ALL)(images, generator(1)))
    assert torch.equal(ColourJitter()(images, generator()), images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"brightness": -0.1}, "brightness=-0.1: give 0 or more"),
        ({"contrast": -0.1}, "contrast=-0.1: give 0 or more"),
        ({"saturation": -1}, "saturation=-1: give 0 or more"),
        ({"hue": 0.6}, "hue=0.6: give a share of the circle of colours from 0 to 0.5"),
        ({"probability": 1.1}, "probability=1.1: give a number from 0 to 1"),
    ],
)
def test_impossible_changes_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        ColourJitter(**options)


@pytest.mark.parametrize("options", [{"saturation": 0.1}, {"hue": 0.1}])
def test_grey_images_have_no_saturation_and_no_hue(options):
    with pytest.raises(UserError, match="grey images have none"):
        ColourJitter(**options)(photographs(2, 1), generator())
    assert ColourJitter(brightness=0.1)(photographs(2, 1), generator()).shape == (2, 1, 12, 9)
