"""From indices to images: by hand, and as a function of k alone."""

import numpy as np
import pytest
import torch

from fewshot_runner.data.batch import Batch, Episode
from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.crops import RandomResizedCrop
from fewshot_runner.data.images import Images
from fewshot_runner.data.loader import TrainingLoader, Viewer
from fewshot_runner.data.samplers import BatchSampler, EpisodeSampler, PairSampler, PKSampler
from fewshot_runner.data.transforms import Standardise, Warp
from fewshot_runner.randomness import torch_generator

CPU = torch.device("cpu")
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, size=(24, 1, 9, 9), dtype=np.uint8))
TABLE = ClassTable.build(np.arange(24) % 4, list("abcd"), ["x", "x", "y", "y"], np.arange(24))
TURNED = TABLE.with_symmetries(["rot000", "rot090"], stride=24)
WARP = Warp(rotation=10, elastic=0.03)

SAMPLERS = {
    "episodes": lambda: EpisodeSampler(TURNED, n_way=3, n_shot=2, n_query=1, episodes=2, seed=0),
    "pairs": lambda: PairSampler(TURNED, n_pairs=6, seed=0),
    "P classes, K images": lambda: PKSampler(TURNED, n_classes=3, n_images=2, seed=0),
    "batches": lambda: BatchSampler(TURNED, batch_size=7, seed=0),
}


def viewer() -> Viewer:
    return Viewer(Images(PIXELS), Standardise(invert=True, mean=[0.1], std=[0.3]), symmetries=True, device=CPU)


CROP = RandomResizedCrop(size=9, scale=(0.3, 0.8))


def cropping() -> Viewer:
    standardise = Standardise(invert=True, mean=[0.1], std=[0.3])
    return Viewer(Images(PIXELS), standardise, symmetries=True, device=CPU, crop=CROP)


def by_hand(index: torch.Tensor) -> torch.Tensor:
    """(B,) to (B, 1, 9, 9), an image at a time, before standardising."""
    images = [np.rot90(PIXELS[number % 24].numpy(), number // 24, axes=(1, 2)) for number in index.tolist()]
    return torch.from_numpy(np.stack(images)).float() / 255


def standardised(images: torch.Tensor) -> torch.Tensor:
    return (1 - images - 0.1) / 0.3


def tensors(item: Batch | Episode) -> list[torch.Tensor]:
    return [value for field in item.__slots__ if isinstance(value := getattr(item, field), torch.Tensor)]


@pytest.mark.parametrize("kind", SAMPLERS)
def test_without_augmentation_an_item_shows_what_the_sampler_drew(kind):
    sampler = SAMPLERS[kind]()
    drawn, item = sampler[5], TrainingLoader(viewer(), sampler, None, seed=0)[5]
    if isinstance(drawn, Episode):
        for one in range(2):
            torch.testing.assert_close(item.support[one], standardised(by_hand(drawn.support[one])))
            torch.testing.assert_close(item.query[one], standardised(by_hand(drawn.query[one])))
        assert item.support.shape == (2, 6, 1, 9, 9)
        assert item.query.shape == (2, 3, 1, 9, 9)
        assert torch.equal(item.support_labels, drawn.support_labels)
        assert torch.equal(item.query_labels, drawn.query_labels)
        assert item.n_way == 3
        assert item.n_images == 2 * (6 + 3)
    else:
        torch.testing.assert_close(item.images, standardised(by_hand(drawn.images)))
        assert torch.equal(item.labels, drawn.labels)
        assert torch.equal(item.groups, drawn.groups)
        assert (item.pairs is None) == (drawn.pairs is None)
        assert item.pairs is None or torch.equal(item.pairs, drawn.pairs)


def test_augmentation_comes_between_the_pixels_and_standardising():
    sampler = SAMPLERS["batches"]()
    item = TrainingLoader(viewer(), sampler, WARP, seed=8)[3]
    warped = WARP(by_hand(sampler[3].images), torch_generator(8, "augment", 3))
    torch.testing.assert_close(item.images, standardised(warped))
    episodes = SAMPLERS["episodes"]()
    drawn, episode = episodes[3], TrainingLoader(viewer(), episodes, WARP, seed=8)[3]
    flat = torch.cat([drawn.support, drawn.query], dim=1).ravel()  # task by task, support before query
    warped = standardised(WARP(by_hand(flat), torch_generator(8, "augment", 3))).view(2, 9, 1, 9, 9)
    torch.testing.assert_close(episode.support, warped[:, :6])
    torch.testing.assert_close(episode.query, warped[:, 6:])


@pytest.mark.parametrize("augment", [None, WARP], ids=["plain", "augmented"])
@pytest.mark.parametrize("kind", SAMPLERS)
def test_trap_14_an_item_is_a_function_of_k_alone(kind, augment):
    loader = TrainingLoader(viewer(), SAMPLERS[kind](), augment, seed=0)
    ordered = [tensors(loader[k]) for k in range(6)]
    again = TrainingLoader(viewer(), SAMPLERS[kind](), augment, seed=0)
    for k in (4, 0, 4, 5, 2):
        assert all(torch.equal(one, other) for one, other in zip(tensors(again[k]), ordered[k], strict=True))


def test_the_same_images_are_augmented_differently_at_each_step_and_under_each_seed():
    class Same(BatchSampler):
        def __getitem__(self, k: int) -> Batch:
            return super().__getitem__(0)

    sampler = Same(TABLE, batch_size=4, seed=0)
    loader = TrainingLoader(viewer(), sampler, WARP, seed=0)
    assert not torch.allclose(loader[0].images, loader[1].images, atol=1e-2)
    assert not torch.allclose(loader[0].images, TrainingLoader(viewer(), sampler, WARP, seed=1)[0].images, atol=1e-2)


def test_trap_17_an_image_that_stands_twice_in_an_item_is_augmented_twice():
    images = viewer().augmented(torch.tensor([3, 3]), WARP, torch_generator(0, "augment"))
    assert not torch.allclose(images[0], images[1], atol=1e-2)


def test_evaluation_sees_images_without_augmentation_and_without_chance():
    index = torch.tensor([5, 40, 5])
    torch.testing.assert_close(viewer()(index), standardised(by_hand(index)))
    assert torch.equal(viewer()(index), viewer()(index))


@pytest.mark.parametrize("augment", [None, WARP], ids=["plain", "augmented"])
def test_a_crop_comes_before_augmentation_and_draws_from_the_same_generator(augment):
    sampler = SAMPLERS["batches"]()
    item = TrainingLoader(cropping(), sampler, augment, seed=8)[3]
    generator = torch_generator(8, "augment", 3)
    pictures = [(picture * 255).round().byte() for picture in by_hand(sampler[3].images)]
    expected = CROP(pictures, generator)
    expected = expected if augment is None else augment(expected, generator)
    torch.testing.assert_close(item.images, standardised(expected))


@pytest.mark.parametrize("kind", SAMPLERS)
def test_trap_14_crops_are_a_function_of_k_alone(kind):
    loader, again = (TrainingLoader(cropping(), SAMPLERS[kind](), None, seed=0) for _ in range(2))
    ordered = [tensors(loader[k]) for k in range(4)]
    for k in (2, 0, 3, 1):
        assert all(torch.equal(one, other) for one, other in zip(tensors(again[k]), ordered[k], strict=True))


def test_trap_17_an_image_that_stands_twice_in_an_item_is_cropped_twice():
    images = cropping().augmented(torch.tensor([3, 3]), None, torch_generator(0, "augment"))
    assert not torch.allclose(images[0], images[1], atol=1e-2)


def test_evaluation_sees_no_crop():
    index = torch.tensor([5, 40, 5])
    assert torch.equal(cropping()(index), viewer()(index))


def test_some_tasks_of_an_episode():
    episode = SAMPLERS["episodes"]()[0]
    second = episode[1:2]
    assert torch.equal(second.support, episode.support[1:])
    assert torch.equal(second.query_labels, episode.query_labels[1:])
    assert second.n_way == 3
    assert second.n_images == 9
