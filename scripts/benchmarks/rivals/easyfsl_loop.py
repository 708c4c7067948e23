"""easyfsl 1.5.0 (https://github.com/sicara/easy-few-shot-learning): its sampler, its collate function, its prototypical
networks, in the training loop of its own notebook, over PNG files.

Where we help it: its sampler hands an argument to torch's that torch no longer takes, so that one is made to take it;
pictures are opened as grey ones, where its own data set would make them RGB and need another step to undo that; what
workers fetched ahead while others were measured is its to use.

Where we deviate: its logits are minus the distance; here they are squared, which makes the loss that of Snell et al.
(2017), as fsl's. In training it embeds support and queries one after the other, so batch norm sees them apart.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Sampler
from torchvision.transforms.functional import to_tensor

Sampler.__init__ = lambda self, data_source=None: None  # before easyfsl's own is made

from easyfsl.datasets import FewShotDataset  # noqa: E402
from easyfsl.methods import PrototypicalNetworks  # noqa: E402
from easyfsl.samplers import TaskSampler  # noqa: E402
from easyfsl.utils import evaluate as easyfsl_evaluate  # noqa: E402

MANY = 1_000_000  # tasks: the loader is asked for as many as are wanted


class Pictures(FewShotDataset):
    """Grey PNG files, a sub-folder a class, as tensors in 0..1."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*/*.png"))
        classes = sorted({path.parent.name for path in self.paths})
        number = {name: label for label, name in enumerate(classes)}
        self.labels = [number[path.parent.name] for path in self.paths]

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[item]) as picture:
            return to_tensor(picture), self.labels[item]

    def __len__(self) -> int:
        return len(self.paths)

    def get_labels(self) -> list[int]:
        return self.labels


def loader_of(
    dataset: FewShotDataset, *, n_way: int, n_shot: int, n_query: int, n_tasks: int = MANY, workers: int = 0
) -> DataLoader:
    sampler = TaskSampler(dataset, n_way=n_way, n_shot=n_shot, n_query=n_query, n_tasks=n_tasks)
    return DataLoader(
        dataset, batch_sampler=sampler, num_workers=workers, collate_fn=sampler.episodic_collate_fn,
        persistent_workers=workers > 0,
    )  # fmt: skip


class Training:
    """So many episodes at a time, Adam after each."""

    def __init__(self, backbone: nn.Module, loader: DataLoader, *, lr: float = 1e-3) -> None:
        self.model = PrototypicalNetworks(backbone).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=lr)
        self.loader = loader
        self.tasks: Iterator | None = None

    def __call__(self, episodes: int) -> None:
        self.tasks = self.tasks or iter(self.loader)
        for _ in range(episodes):
            support_images, support_labels, query_images, query_labels, _ = next(self.tasks)
            self.optimizer.zero_grad()
            loss = task_loss(self.model, support_images, support_labels, query_images, query_labels)
            loss.backward()
            self.optimizer.step()
            loss.item()  # as its notebook, for the progress bar


def task_loss(
    model: PrototypicalNetworks, support: Tensor, support_labels: Tensor, query: Tensor, query_labels: Tensor
) -> Tensor:
    model.process_support_set(support, support_labels)
    return functional.cross_entropy(-model(query).square(), query_labels)


def evaluate(backbone: nn.Module, loader: DataLoader) -> float:
    """The accuracy over the tasks of `loader`."""
    return easyfsl_evaluate(PrototypicalNetworks(backbone), loader, device="cpu", use_tqdm=False)
