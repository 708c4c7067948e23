"""Crops against torchvision: the same pixels for the same box, and boxes of the same distribution."""

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import RandomResizedCrop as Reference
from torchvision.transforms.v2 import InterpolationMode, functional

from fewshot_runner.data.crops import CentreCrop, RandomResizedCrop, resized
from fewshot_runner.errors import UserError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(*shapes: tuple[int, int], channels: int = 3) -> list[torch.Tensor]:
    """uint8 (C, H, W) each, with their channels together as a ragged store has them."""
    return [
        torch.randint(0, 256, (*shape, channels), dtype=torch.uint8, generator=generator(n)).permute(2, 0, 1)
        for n, shape in enumerate(shapes)
    ]


SHAPES = [(40, 56), (56, 40), (48, 48), (33, 90), (90, 33), (37, 41)]


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 64])
def test_a_crop_equals_torchvision_image_by_image(size, channels, resample, monkeypatch):
    # torchvision resizes bytes as we do everywhere; on processors of another kind it would resize floats
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    crop = RandomResizedCrop(size=size, scale=(0.2, 1.0), resample=resample)
    batch = pictures(*SHAPES, channels=channels)
    crops = crop(batch, generator(3))
    assert crops.shape == (6, channels, size, size)
    assert crops.dtype == torch.float32
    boxes = crop.boxes(torch.tensor(SHAPES), generator(3))
    for cropped, picture, box in zip(crops, batch, boxes.tolist(), strict=True):
        expected = functional.resized_crop(
            picture, *box, size=[size, size], interpolation=InterpolationMode[resample.upper()], antialias=True
        )
        assert torch.equal((cropped * 255).round().byte(), expected)
        torch.testing.assert_close(cropped, expected / 255)


def drawn(shape: tuple[int, int], count: int, **options) -> np.ndarray:
    """(count, 4) top, left, height, width"""
    crop = RandomResizedCrop(size=8, **options)
    return crop.boxes(torch.tensor([shape]).expand(count, 2), generator()).numpy()


def reference(shape: tuple[int, int], count: int, scale, ratio) -> np.ndarray:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blank = torch.empty(3, *shape)
        return np.array([Reference.get_params(blank, list(scale), list(ratio)) for _ in range(count)])


@pytest.mark.parametrize(
    ("shape", "scale", "ratio"),
    [
        ((256, 341), (0.8, 1.0), (3 / 4, 4 / 3)),
        ((341, 256), (0.08, 1.0), (3 / 4, 4 / 3)),
        ((200, 330), (0.6, 0.9), (0.5, 1.0)),  # many boxes do not fit
    ],
)
def test_boxes_are_distributed_as_torchvisions(shape, scale, ratio):
    ours, theirs = drawn(shape, 1500, scale=scale, ratio=ratio), reference(shape, 1500, scale, ratio)
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column], method="asymp").pvalue > 1e-3
    for describe in (lambda box: box[:, 2] * box[:, 3], lambda box: box[:, 3] / box[:, 2]):
        assert stats.ks_2samp(describe(ours), describe(theirs), method="asymp").pvalue > 1e-3
    top, left, height, width = ours.T
    assert ours.min() >= 0
    assert (top + height <= shape[0]).all()
    assert (left + width <= shape[1]).all()
    assert (height > 0).all()


def test_area_and_shape_stay_within_what_was_asked():
    _, _, height, width = drawn((400, 500), 2000, scale=(0.3, 0.5), ratio=(0.8, 1.5)).T
    share, ratio = height * width / (400 * 500), width / height
    assert 0.295 < share.min() < 0.31
    assert 0.49 < share.max() < 0.505
    assert 0.795 < ratio.min() < 0.81
    assert 1.48 < ratio.max() < 1.51


def test_every_place_is_as_likely_as_any_other_the_last_included():
    boxes = drawn((4, 4), 9000, scale=(0.25, 0.25), ratio=(1.0, 1.0))
    assert (boxes[:, 2:] == 2).all()
    counts = np.bincount(boxes[:, 0] * 3 + boxes[:, 1], minlength=9)
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("shape", [(20, 200), (200, 20), (31, 200), (200, 31)])
def test_where_no_box_fits_the_largest_of_an_allowed_shape_is_cut_from_the_middle(shape):
    scale, ratio = (0.8, 1.0), (3 / 4, 4 / 3)
    boxes = drawn(shape, 5, scale=scale, ratio=ratio)
    assert np.array_equal(boxes, reference(shape, 5, scale, ratio))


def test_trap_17_a_picture_that_stands_twice_is_cropped_twice():
    (picture,) = pictures((40, 56))
    crops = RandomResizedCrop(size=16)([picture] * 6, generator())
    for one in range(6):
        for other in range(one):
            assert not torch.allclose(crops[one], crops[other], atol=1e-2)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize("value", [0, 77, 255])
def test_trap_18_a_blank_picture_stays_blank_up_to_the_border(value, resample):
    blank = [torch.full((3, *shape), value, dtype=torch.uint8) for shape in (*SHAPES, (8, 24))]
    crops = RandomResizedCrop(size=20, scale=(0.1, 1.0), resample=resample)(blank, generator())
    assert (crops == torch.tensor(value) / 255).all()


def test_the_same_generator_gives_the_same_crops_and_an_image_does_not_depend_on_the_others_shapes():
    crop = RandomResizedCrop(size=16)
    batch = pictures(*SHAPES)
    assert torch.equal(crop(batch, generator(1)), crop(batch, generator(1)))
    assert not torch.equal(crop(batch, generator(1)), crop(batch, generator(2)))
    other = [batch[0], *pictures((9, 9), (10, 30), (12, 12), (80, 80), (20, 21))]
    assert torch.equal(crop(batch, generator(1))[0], crop(other, generator(1))[0])


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_bytes_and_floats_are_resized_alike(resample):
    for picture in pictures(*SHAPES):
        one, other = (resized(picture[None], 16, resample, in_bytes=in_bytes) for in_bytes in (True, False))
        assert one.shape == other.shape == (1, 3, 16, 16)
        assert one.dtype == other.dtype == torch.uint8
        assert (one.int() - other.int()).abs().max() <= 1
        assert abs((one.float() - other.float()).mean()) < 0.1, "both round to the nearest"


def test_a_centre_crop_equals_torchvision():
    for shape in ((20, 20), (21, 20), (17, 30), (16, 16), (19, 23)):
        images = torch.rand(2, 3, *shape, generator=generator())
        assert torch.equal(CentreCrop(size=16)(images, generator()), functional.center_crop(images, [16, 16]))


def test_a_centre_crop_larger_than_the_image_is_refused():
    with pytest.raises(UserError, match="size=16: the images to be cropped are 20 x 15"):
        CentreCrop(size=16)(torch.zeros(1, 1, 20, 15), generator())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size=0: give 1 pixel or more"),
        ({"scale": (0.0, 1.0)}, r"scale=\[0.0, 1.0\]: give two rising shares"),
        ({"scale": (0.9, 0.8)}, r"scale=\[0.9, 0.8\]"),
        ({"scale": (0.9, 1.1)}, r"scale=\[0.9, 1.1\]"),
        ({"ratio": (0.0, 1.0)}, r"ratio=\[0.0, 1.0\]: give two rising numbers above 0"),
        ({"ratio": (2.0, 1.0)}, r"ratio=\[2.0, 1.0\]"),
        ({"resample": "nearest"}, "resample=nearest: choose bilinear or bicubic"),
    ],
)
def test_impossible_crops_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        RandomResizedCrop(**{"size": 8, **options})
