"""Photographs at their own aspect ratio: stored and viewed as torchvision resizes and crops pictures of Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from fewshot_runner.data.decode import LONGEST, evaluation_view, shorten
from fewshot_runner.data.ragged import RaggedImages
from fewshot_runner.data.store import open_store

RESAMPLING = {"bilinear": v2.InterpolationMode.BILINEAR, "bicubic": v2.InterpolationMode.BICUBIC}


def by_torchvision(image: Image.Image, shorter_side: int, size: int, resample: str) -> np.ndarray:
    """(C, size, size)"""
    recipe = v2.Compose([v2.Resize(shorter_side, RESAMPLING[resample]), v2.CenterCrop(size)])
    return np.asarray(recipe(image)).reshape(size, size, -1).transpose(2, 0, 1)


@pytest.mark.parametrize("resample", RESAMPLING)
@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
@pytest.mark.parametrize(("shorter_side", "size"), [(20, 16), (20, 15), (20, 20), (40, 28), (24, 17)])
def test_the_middle_of_a_stored_photograph_is_torchvisions_to_the_bit(
    tmp_path, photos, shorter_side, size, channels, mode, resample
):
    source = photos(mode=mode)
    store = open_store(
        source, image_size=size, shorter_side=shorter_side, resample=resample, channels=channels, cache=tmp_path
    )
    images = RaggedImages(
        torch.from_numpy(store.pixels), offsets=store.offsets, sizes=store.sizes, channels=channels, view_size=size
    )
    index = torch.tensor([8, 0, 1, 2, 3, 4, 4, 7])  # 5 and 6 are panoramas, see below
    gathered = images.gather(index)
    assert gathered.shape == (8, channels, size, size)
    assert gathered.dtype == torch.float32
    for view, number in zip(gathered.numpy(), index.tolist(), strict=True):
        expected = by_torchvision(source.image(number), shorter_side, size, resample)
        assert np.array_equal(view, expected.astype(np.float32) / np.float32(255))
        own = evaluation_view(source.image(number), size, channels, shorter_side=shorter_side, resample=resample)
        assert np.array_equal(own, expected)


def test_without_a_shorter_side_a_view_is_the_square_of_the_middle(photos):
    image = photos().image(1)  # 40 x 30
    square = image.resize((16, 16), Image.Resampling.BICUBIC, box=(5, 0, 35, 30))
    view = evaluation_view(image, 16, 3, shorter_side=None, resample="bicubic")
    assert np.array_equal(view, np.asarray(square).transpose(2, 0, 1))


def test_pictures_are_whole_and_at_their_own_aspect_ratio(tmp_path, photos):
    source = photos()
    store = open_store(source, image_size=8, shorter_side=20, channels=3, cache=tmp_path)
    images = RaggedImages(
        torch.from_numpy(store.pixels), offsets=store.offsets, sizes=store.sizes, channels=3, view_size=8
    )
    assert len(images) == 9
    for number, picture in enumerate(images.pictures(torch.arange(9))):
        whole = shorten(source.image(number), 20, 3)
        assert torch.equal(picture, torch.from_numpy(np.array(whole)).permute(2, 0, 1))
        assert store.sizes[number].tolist() == list(picture.shape[1:])
        assert min(picture.shape[1:]) == 20
    assert [tuple(size) for size in store.sizes.tolist()] == [
        (26, 20), (20, 26), (20, 20), (20, 20), (20, 43), (60, 20), (20, 60), (30, 20), (20, 29),
    ]  # fmt: skip


@pytest.mark.parametrize("upright", [False, True])
def test_of_a_panorama_the_middle_is_kept(upright):
    pixels = np.random.default_rng(0).integers(0, 256, size=(10, 70, 3), dtype=np.uint8)
    middle = pixels[:, 20:50]
    if upright:
        pixels, middle = pixels.transpose(1, 0, 2), middle.transpose(1, 0, 2)
    kept = shorten(Image.fromarray(pixels), 10, 3)
    assert LONGEST == 3
    assert np.array_equal(np.asarray(kept), middle)


@pytest.mark.parametrize("number", [5, 6])
@pytest.mark.parametrize(("shorter_side", "size"), [(20, 16), (40, 28), (24, 18)])
def test_the_middle_of_a_panorama_is_torchvisions_to_a_rounding(photos, number, shorter_side, size):
    image = photos().image(number)
    view = evaluation_view(image, size, 3, shorter_side=shorter_side).astype(int)
    assert np.abs(view - by_torchvision(image, shorter_side, size, "bilinear")).max() <= 1


def test_pictures_share_the_memory_of_the_store(tmp_path, photos):
    store = open_store(photos(), image_size=8, shorter_side=20, channels=3, cache=tmp_path)
    pixels = torch.from_numpy(store.pixels)
    images = RaggedImages(pixels, offsets=store.offsets, sizes=store.sizes, channels=3, view_size=8)
    (picture,) = images.pictures(torch.tensor([4]))
    assert picture.untyped_storage().data_ptr() == pixels.untyped_storage().data_ptr()
    before = pixels.clone()
    images.gather(torch.tensor([4])).zero_()
    assert torch.equal(pixels, before)
