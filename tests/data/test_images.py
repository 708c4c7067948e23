"""Pixels by index: every symmetry against numpy's own rotations and flips."""

import numpy as np
import pytest
import torch

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.images import SYMMETRIES, Images, symmetry_permutations

# What each name means: mirror left and right first, then turn counter-clockwise.
TURNED = {
    f"{kind}{90 * quarter:03d}": (lambda image, flip=flip, quarter=quarter: np.rot90(
        image[..., ::-1] if flip else image, quarter, axes=(-2, -1)
    ))
    for kind, flip in (("rot", False), ("flip", True))
    for quarter in range(4)
}  # fmt: skip


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(5, 3, 7, 7), dtype=np.uint8)


def test_the_names_of_symmetries_are_all_different_maps(pixels):
    assert SYMMETRIES["none"] == tuple(TURNED)[:1]
    assert SYMMETRIES["rotations"] == tuple(TURNED)[:4]
    assert SYMMETRIES["dihedral"] == tuple(TURNED)
    assert len({turned(pixels).tobytes() for turned in TURNED.values()}) == 8


@pytest.mark.parametrize("name", SYMMETRIES["dihedral"])
def test_an_index_under_a_symmetry_is_the_turned_image(pixels, name):
    version = SYMMETRIES["dihedral"].index(name)
    index = torch.tensor([3, 0, 3, 4]) + version * len(pixels)
    gathered = Images(torch.from_numpy(pixels)).gather(index, symmetries=True)
    expected = TURNED[name](pixels[[3, 0, 3, 4]]).astype(np.float32) / np.float32(255)
    assert gathered.dtype == torch.float32
    assert np.array_equal(gathered.numpy(), expected)


def test_a_batch_may_mix_symmetries(pixels):
    index = np.random.default_rng(1).integers(0, 8 * len(pixels), size=60)
    gathered = Images(torch.from_numpy(pixels)).gather(torch.from_numpy(index), symmetries=True)
    for image, number in zip(gathered.numpy(), index, strict=True):
        name = SYMMETRIES["dihedral"][number // 5]
        assert np.array_equal(image, TURNED[name](pixels[number % 5]).astype(np.float32) / np.float32(255))


def test_classes_of_a_table_with_symmetries_show_the_turned_images_of_their_base_class(pixels):
    """The arithmetic of `ClassTable.with_symmetries` and of `Images.gather` is the same."""
    table = ClassTable.build(np.array([0, 1, 0, 2, 1]), ["a", "b", "c"], ["", "", ""], np.arange(5))
    turned = table.with_symmetries(SYMMETRIES["dihedral"], stride=len(pixels))
    images = Images(torch.from_numpy(pixels))
    for number, name in enumerate(turned.names):
        base, _, symmetry = name.partition("/")
        members = turned.members[turned.offsets[number] : turned.offsets[number + 1]]
        gathered = images.gather(torch.from_numpy(members), symmetries=True).numpy()
        own = {"a": [0, 2], "b": [1, 4], "c": [3]}[base]
        assert np.array_equal(gathered, TURNED[symmetry or "rot000"](pixels[own]).astype(np.float32) / np.float32(255))


def test_images_without_symmetries_need_not_be_square():
    pixels = torch.arange(2 * 3 * 5, dtype=torch.uint8).view(2, 1, 3, 5)
    images = Images(pixels)
    assert len(images) == 2
    assert torch.equal(images.gather(torch.tensor([1, 0, 1])), pixels[[1, 0, 1]].float() / 255)


def test_values_run_from_0_to_1_and_the_store_keeps_its_own():
    pixels = torch.tensor([0, 255, 128, 1], dtype=torch.uint8).view(1, 1, 2, 2)
    images = Images(pixels)
    for symmetries in (False, True):
        gathered = images.gather(torch.tensor([0]), symmetries=symmetries)
        assert gathered.ravel().tolist() == pytest.approx([0.0, 1.0, 128 / 255, 1 / 255])
        gathered.zero_()
    assert pixels.ravel().tolist() == [0, 255, 128, 1]


@pytest.mark.parametrize("size", [1, 2, 8])
def test_a_symmetry_loses_no_pixel(size):
    table = symmetry_permutations(size)
    assert table.shape == (8, size * size)
    assert (table.sort(dim=1).values == torch.arange(size * size)).all()


def test_bytes_are_what_is_sent(monkeypatch):
    sent_types = []
    to = torch.Tensor.to

    def watched(self, *args, **kwargs):
        if args == (torch.device("meta"),):
            sent_types.append(self.dtype)
        return to(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", watched)
    images = Images(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
    gathered = images.gather(torch.tensor([0, 1, 1]), symmetries=True, device=torch.device("meta"))
    assert (gathered.shape, gathered.dtype, gathered.device.type) == ((3, 1, 4, 4), torch.float32, "meta")
    assert sent_types == [torch.uint8]
