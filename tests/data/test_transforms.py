"""Warps against slow loops over pixels.

What a warp did is read from its effect on ramps, images whose values are their own coordinates: that depends on no
order of random draws.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from fewshot_runner.data.transforms import Chain, Warp
from fewshot_runner.errors import UserError

EACH = {
    "rotation": {"rotation": 20.0},
    "shear": {"shear": 0.3},
    "scale": {"scale": 0.25},
    "shift": {"shift": 0.1},
    "elastic": {"elastic": 0.05},
}
ALL = {name: value for options in EACH.values() for name, value in options.items()}
BACKGROUNDS = ["white", "black", "edge", "mirror"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramps(count: int, size: int) -> torch.Tensor:
    """(count, 2, size, size): each pixel holds its own x and y, 0 at the left or upper edge and 1 at the other."""
    centre = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    return torch.stack([x, y]).expand(count, 2, size, size).clone()


def sources(count: int, size: int, **options: float) -> np.ndarray:
    """(count, size, size, 2): where each pixel of the output comes from, x and y; where unclipped."""
    return Warp(**options, background="edge")(ramps(count, size), generator()).permute(0, 2, 3, 1).double().numpy()


def affine_maps(count: int, size: int = 17, **options: float) -> np.ndarray:
    """(count, 2, 3): the maps from output to input, coordinates -1..1, fitted to the middle of the image."""
    middle = slice(size // 2 - 1, size // 2 + 2)  # never clipped by the border
    places = ramps(1, size)[0, :, middle, middle].reshape(2, -1).double().numpy() * 2 - 1
    design = np.vstack([places, np.ones(places.shape[1])]).T
    seen = sources(count, size, **options)[:, middle, middle].reshape(count, -1, 2) * 2 - 1
    return np.stack([np.linalg.lstsq(design, target, rcond=None)[0].T for target in seen])


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_without_parameters_nothing_changes_but_rounding(background):
    images = torch.rand(3, 3, 11, 11, generator=generator())
    warped = Warp(background=background)(images, generator())
    torch.testing.assert_close(warped, images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", EACH.values(), ids=EACH)
def test_trap_17_equal_images_of_a_batch_come_out_different(options):
    image = torch.rand(1, 1, 16, 16, generator=generator())
    warped = Warp(**options)(image.repeat(8, 1, 1, 1), generator())
    for one in range(8):
        assert not torch.allclose(warped[one], image[0], atol=1e-3)
        for other in range(one):
            assert not torch.allclose(warped[one], warped[other], atol=1e-3)


@pytest.mark.parametrize(
    ("background", "paper"),
    [("white", 1.0), ("black", 0.0), *((b, paper) for b in ("edge", "mirror") for paper in (1.0, 0.0, 0.3))],
)
@pytest.mark.parametrize("options", [*EACH.values(), ALL], ids=[*EACH, "all"])
def test_trap_18_blank_paper_stays_blank_up_to_the_border(options, background, paper):
    blank = torch.full((6, 3, 14, 14), paper)
    warped = Warp(**options, background=background)(blank, generator())
    torch.testing.assert_close(warped, blank, atol=1e-6 if background in ("edge", "mirror") else 0, rtol=0)


def test_trap_18_the_background_is_what_comes_in_from_beyond_the_border():
    grey = torch.full((40, 1, 12, 12), 0.5)
    for background, value in (("white", 1.0), ("black", 0.0)):
        warped = Warp(shift=0.4, background=background)(grey, generator())
        assert ((warped - value).abs() < 1e-6).any()
        assert warped.min() >= min(value, 0.5)
        assert warped.max() <= max(value, 0.5)
    for background in ("edge", "mirror"):
        torch.testing.assert_close(Warp(shift=0.4, background=background)(grey, generator()), grey)


@pytest.fixture
def largest_draw(monkeypatch):
    """Every uniform deviate is 1, the end of its range."""
    monkeypatch.setattr(torch, "rand", lambda *size, generator, **options: torch.ones(*size, **options))


@pytest.mark.usefixtures("largest_draw")
@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("degrees", [90, 180, 270, -90])
def test_a_turn_by_quarters_moves_whole_pixels(size, degrees):
    images = torch.from_numpy(np.random.default_rng(0).random((2, 3, size, size), dtype=np.float32))
    warped = Warp(rotation=degrees)(images, generator())
    torch.testing.assert_close(warped, images.rot90(degrees // 90, dims=(2, 3)), atol=1e-4, rtol=0)


@pytest.mark.usefixtures("largest_draw")
@pytest.mark.parametrize(
    ("background", "padding"),
    [
        ("white", {"constant_values": 1.0}),
        ("black", {"constant_values": 0.0}),
        ("edge", {"mode": "edge"}),
        ("mirror", {"mode": "symmetric"}),
    ],
)
def test_a_shift_by_whole_pixels_moves_whole_pixels(background, padding):
    images = np.random.default_rng(0).random((2, 1, 10, 10), dtype=np.float32)
    warped = Warp(shift=0.3, background=background)(torch.from_numpy(images), generator()).numpy()
    padded = np.pad(images, [(0, 0), (0, 0), (0, 3), (0, 3)], **padding)
    np.testing.assert_allclose(warped, padded[..., 3:, 3:], atol=1e-5)


def test_the_same_generator_gives_the_same_bits_and_another_does_not():
    images = torch.rand(4, 1, 16, 16, generator=generator(9))
    warp = Warp(**ALL)
    assert torch.equal(warp(images, generator(1)), warp(images, generator(1)))
    assert not torch.allclose(warp(images, generator(1)), warp(images, generator(2)), atol=1e-2)
    one = generator(1)
    assert not torch.equal(warp(images, one), warp(images, one)), "the generator moves on"


def test_the_images_that_came_in_are_left_alone():
    images = torch.rand(4, 1, 16, 16, generator=generator(9))
    before = images.clone()
    for background in BACKGROUNDS:
        Warp(**ALL, background=background)(images, generator())
    assert torch.equal(images, before)


def bilinear(image: np.ndarray, x: float, y: float, background: str) -> float:
    """One sample of (H, W) at x, y in pixels from the centre of the upper left pixel, by the definition."""
    total = 0.0
    height, width = image.shape
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            weight = (1 - abs(x - column)) * (1 - abs(y - row))
            if background == "edge":
                value = image[min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
            elif background == "mirror":
                rows, columns = [*range(height), *reversed(range(height))], [*range(width), *reversed(range(width))]
                value = image[rows[row % (2 * height)], columns[column % (2 * width)]]
            elif 0 <= row < height and 0 <= column < width:
                value = image[row, column]
            else:
                value = {"white": 1.0, "black": 0.0}[background]
            total += weight * value
    return total


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_an_affine_warp_equals_a_slow_loop_over_pixels(background):
    count, size = 4, 17
    options = {"rotation": 40.0, "shear": 0.4, "scale": 0.3, "shift": 0.15}
    images = torch.rand(count, 2, size, size, generator=generator(5))
    warped = Warp(**options, background=background)(images, generator())
    centre = (np.arange(size) + 0.5) / size * 2 - 1
    for n, affine in enumerate(affine_maps(count, size, **options)):
        for row in range(size):
            for column in range(size):
                x, y = affine @ (centre[column], centre[row], 1)
                x, y = (x + 1) / 2 * size - 0.5, (y + 1) / 2 * size - 0.5
                for channel in range(2):
                    expected = bilinear(images[n, channel].numpy(), x, y, background)
                    assert warped[n, channel, row, column].item() == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
@pytest.mark.parametrize(
    ("elastic", "side", "height", "width"), [(0.0, 5, 17, 17), (0.05, 5, 28, 28), (0.05, 2, 9, 16), (0.05, 7, 33, 5)]
)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_warp_equals_torch_image_by_image(background, elastic, side, height, width, dtype, tolerance):
    """Torch's own grid of an affine map, and its own interpolation of the control points."""
    images = torch.rand(6, 3, height, width, generator=generator(5), dtype=dtype)
    options = {"rotation": 40.0, "shear": 0.4, "scale": 0.3, "shift": 0.15, "elastic": elastic}
    warp = Warp(**options, elastic_grid=side, background=background)
    warped = warp(images, generator())
    for n, drawn in enumerate(warp._drawn(6, generator(), dtype)):
        grid = functional.affine_grid(drawn[None, :, :3], [1, 3, height, width], align_corners=False)
        if elastic:
            points = drawn[None, :, 3:].unflatten(2, (side, side))
            field = functional.interpolate(points, (height, width), mode="bicubic", align_corners=True)
            grid = grid + field.permute(0, 2, 3, 1)
        if background in ("edge", "mirror"):
            beyond = {"edge": "border", "mirror": "reflection"}[background]
            one = functional.grid_sample(images[n : n + 1], grid, padding_mode=beyond, align_corners=False)
        else:
            whole = torch.ones(1, 1, height, width, dtype=dtype)
            inside = functional.grid_sample(whole, grid, align_corners=False)  # share of the image
            one = functional.grid_sample(images[n : n + 1], grid, align_corners=False)
            one = one + (1 - inside) * (background == "white")
        torch.testing.assert_close(warped[n], one[0], atol=tolerance, rtol=0)


@pytest.mark.usefixtures("largest_draw")
def test_an_affine_map_scales_then_shears_then_turns():
    """From output to input, the order in which a point is moved."""
    (found,) = affine_maps(1, rotation=20.0, shear=0.3, scale=0.25, shift=0.1)
    cos, sin = math.cos(math.radians(20)), math.sin(math.radians(20))
    turned = np.array([[cos, -sin], [sin, cos]]) @ [[1, 0.3], [0.3, 1]] @ np.diag([1.25, 1.25])
    np.testing.assert_allclose(found, np.c_[turned, [0.2, 0.2]], atol=1e-5)


def uniform(values: np.ndarray, limit: float) -> bool:
    assert np.abs(values).max() <= limit * (1 + 1e-4)
    return stats.kstest(values, "uniform", args=(-limit, 2 * limit)).pvalue > 1e-4


def test_each_parameter_is_uniform_within_its_documented_range():
    count = 1500
    rotation = affine_maps(count, rotation=30.0)
    angle = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
    assert uniform(angle, math.radians(30))
    turn = np.stack([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    np.testing.assert_allclose(rotation[:, :, :2], turn, atol=1e-4)

    shear = affine_maps(count, shear=0.3)
    assert uniform(shear[:, 0, 1], 0.3)
    assert uniform(shear[:, 1, 0], 0.3)
    np.testing.assert_allclose(shear[:, [0, 1], [0, 1]], 1, atol=1e-4)

    scale = affine_maps(count, scale=0.2)
    assert uniform(scale[:, 0, 0] - 1, 0.2)
    assert uniform(scale[:, 1, 1] - 1, 0.2)
    assert abs(np.corrcoef(scale[:, 0, 0], scale[:, 1, 1])[0, 1]) < 0.1, "each axis has its own scale"

    shift = affine_maps(count, shift=0.1)
    assert uniform(shift[:, 0, 2] / 2, 0.1), "coordinates run over 2, shifts are shares of the image"
    assert uniform(shift[:, 1, 2] / 2, 0.1)
    assert abs(np.corrcoef(shift[:, 0, 2], shift[:, 1, 2])[0, 1]) < 0.1

    for maps in (rotation, shear, scale):
        np.testing.assert_allclose(maps[:, :, 2], 0, atol=1e-4)
    for maps in (scale, shift):
        np.testing.assert_allclose(maps[:, [0, 1], [1, 0]], 0, atol=1e-4)


def displacements(count: int, *, size: int = 33, elastic: float = 0.03, elastic_grid: int = 5) -> np.ndarray:
    """(count, size, size, 2) in image sizes; right in the middle, clipped towards the border."""
    moved = sources(count, size, elastic=elastic, elastic_grid=elastic_grid)
    return moved - ramps(1, size)[0].permute(1, 2, 0).double().numpy()


def test_control_points_move_by_a_normal_deviate_of_the_given_share():
    field = displacements(300)
    points = field[:, 8:25:8, 8:25:8]  # of 5 x 5 points at 0, 8, 16, 24 and 32, those off the border
    assert stats.kstest(points.ravel(), "norm", args=(0, 0.03)).pvalue > 1e-4
    assert abs(np.corrcoef(points[:, :, 1:].ravel(), points[:, :, :-1].ravel())[0, 1]) < 0.1, "independent points"
    assert abs(np.corrcoef(points[..., 0].ravel(), points[..., 1].ravel())[0, 1]) < 0.1, "independent axes"
    finer = displacements(300, size=25, elastic=0.01, elastic_grid=9)[:, 6:19:3, 6:19:3]
    assert stats.kstest(finer.ravel(), "norm", args=(0, 0.01)).pvalue > 1e-4


def test_the_elastic_field_is_bounded_and_smooth_between_its_control_points():
    field = displacements(200)[:, 8:25, 8:25]
    points = np.abs(field[:, ::8, ::8]).max()
    assert np.abs(field).max() < 2 * 5 * 0.03, "five deviates, and what a cubic overshoots"
    assert points > 2 * 0.03
    step = np.diff(field, axis=1)
    assert np.abs(step).max() < 0.03, "far below the 0.3 that independent pixels would jump"
    assert np.corrcoef(field[:, 1:].ravel(), field[:, :-1].ravel())[0, 1] > 0.95
    bend = np.diff(step, axis=1)
    assert np.abs(bend).mean() < 0.3 * np.abs(step).mean()


def test_an_elastic_field_adds_to_the_affine_map():
    both = sources(300, 33, shift=0.05, elastic=0.02)[:, 16, 16]
    shift = (affine_maps(300, 33, shift=0.05)[:, :, 2] + 1) / 2
    assert stats.kstest((both - shift).ravel(), "norm", args=(0, 0.02)).pvalue > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": "grey"}, "background=grey: choose white, black, edge or mirror"),
        ({"scale": 1.0}, "scale=1.0: give a share of 0 or more and below 1"),
        ({"scale": -0.1}, "scale=-0.1"),
        ({"elastic_grid": 1}, "elastic_grid=1: give 2 or more control points a side"),
        ({"probability": 1.5}, "probability=1.5: give a number from 0 to 1"),
    ],
)
def test_impossible_warps_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Warp(**options)


# --- each component with a probability


def changes(options: dict[str, float], count: int = 1200, **more: float) -> np.ndarray:
    """(count,): which maps differ from the identity."""
    moved = sources(count, 9, **options, **more)[:, 3:6, 3:6] - ramps(1, 9)[0, :, 3:6, 3:6].permute(1, 2, 0).numpy()
    return np.abs(moved).reshape(count, -1).max(axis=1) > 1e-5


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("options", EACH.values(), ids=EACH)
def test_a_component_is_applied_to_an_image_with_the_given_probability(options, probability):
    changed = changes(options, probability=probability)
    assert stats.binomtest(int(changed.sum()), len(changed), probability).pvalue > 1e-4
    if probability:
        assert abs(np.corrcoef(changed[1:], changed[:-1])[0, 1]) < 0.12, "each image for itself"


def test_components_are_applied_independently_of_each_other():
    """As in Koch et al.: of four components at one half, each of the sixteen choices is as likely."""
    count = 1600
    found = affine_maps(count, rotation=20.0, shift=0.1, probability=0.5)
    turned, shifted = np.abs(found[:, 1, 0]) > 1e-4, np.abs(found[:, :, 2]).max(axis=1) > 1e-4
    assert stats.chisquare(np.bincount(2 * turned + shifted, minlength=4)).pvalue > 1e-4
    found = affine_maps(count, shear=0.3, scale=0.2, probability=0.5)
    sheared = np.abs(found[:, [0, 1], [1, 0]]).max(axis=1) > 1e-4
    scaled = np.abs(found[:, [0, 1], [0, 1]] - 1).max(axis=1) > 1e-4
    assert stats.chisquare(np.bincount(2 * sheared + scaled, minlength=4)).pvalue > 1e-4
    both = affine_maps(count, scale=0.2, shift=0.1, probability=0.5)
    scaled = np.abs(both[:, [0, 1], [0, 1]] - 1).max(axis=1) > 1e-4
    shifted = np.abs(both[:, :, 2]).max(axis=1) > 1e-4
    assert stats.chisquare(np.bincount(2 * scaled + shifted, minlength=4)).pvalue > 1e-4
    assert uniform(both[scaled][:, 0, 0] - 1, 0.2), "what is applied is as large as ever"
    assert uniform(both[shifted][:, 1, 2] / 2, 0.1)
    assert (np.abs(both[shifted][:, :, 2]) > 1e-7).all(), "along both axes or along none"


def test_certainty_draws_no_more_than_the_parameters():
    """So trainings that know no probability keep their numbers: seven deviates an image, then the control points."""
    left, right = generator(), generator()
    Warp(**ALL)(torch.rand(6, 1, 8, 8), left)
    for _ in range(7):
        torch.rand(6, generator=right)
    torch.randn(6, 2, 5, 5, generator=right)
    assert torch.equal(left.get_state(), right.get_state())


# --- one after the other


def test_a_chain_applies_its_transforms_in_order_and_passes_the_generator_on():
    images = torch.rand(4, 1, 8, 8, generator=generator(3))
    turn, shift = Warp(rotation=20, background="edge"), Warp(shift=0.2, background="edge")
    by_hand = generator(1)
    expected = shift(turn(images, by_hand), by_hand)
    assert torch.equal(Chain([turn, shift])(images, generator(1)), expected)
    assert not torch.allclose(Chain([shift, turn])(images, generator(1)), expected, atol=1e-3)
    assert torch.equal(Chain([])(images, generator()), images)
