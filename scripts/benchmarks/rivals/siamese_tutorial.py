"""A well-known siamese tutorial's training step: two pictures a pair opened with PIL one by one, plain layers, binary
cross-entropy over a sigmoid. Its pairs are mended here: two images or two classes, as in fsl's recipe.

Shapes: P pairs, half of them of one class.
"""

import random
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.functional import to_tensor


class Twins(nn.Module):
    """The tutorial's network for 105 x 105 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(4, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.compare = nn.Sequential(nn.Linear(2592, 256), nn.ReLU(), nn.Linear(256, 1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two (P, 1, 105, 105) to the probabilities (P,) of "same"."""
        return torch.sigmoid(self.compare((self.embed(first) - self.embed(second)).abs())).squeeze(1)


class Training:
    """So many steps of `n_pairs` pairs at a time over the PNG files of `folder`, a sub-folder a class."""

    def __init__(self, network: Twins, folder: Path, *, n_pairs: int = 512, lr: float = 1e-4) -> None:
        self.network = network
        self.classes = [sorted(of_class.glob("*.png")) for of_class in sorted(folder.iterdir())]
        self.n_pairs = n_pairs
        self.optimizer = torch.optim.Adam(network.parameters(), lr=lr)
        self.random = random.Random(0)

    def __call__(self, steps: int) -> None:
        for _ in range(steps):
            first, second, same = self.draw()
            self.optimizer.zero_grad()
            loss = pair_loss(self.network, first, second, same)
            loss.backward()
            self.optimizer.step()
            loss.item()

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        half = self.n_pairs // 2
        pairs = [self.random.sample(self.random.choice(self.classes), 2) for _ in range(half)]
        pairs += [[self.random.choice(each) for each in self.random.sample(self.classes, 2)] for _ in range(half)]
        first, second = (torch.stack([opened(pair[side]) for pair in pairs]) for side in (0, 1))
        return first, second, torch.tensor([1.0] * half + [0.0] * half)


def opened(path: Path) -> Tensor:
    with Image.open(path) as picture:
        return to_tensor(picture)


def pair_loss(network: Twins, first: Tensor, second: Tensor, same: Tensor) -> Tensor:
    return functional.binary_cross_entropy(network(first, second), same)
