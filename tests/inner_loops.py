"""A small network and tasks for the tests of inner loops, and the slow way to fit the one to the other.

Shapes: E episodes, N ways, S support images.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.data.batch import Episode
from fewshot_runner.facts import Facts
from fewshot_runner.models.conv4 import Conv4
from fewshot_runner.models.conv4_strided import Conv4Strided


def backbone(model: type = Conv4Strided, *, widths: tuple = (4, 6)) -> Conv4 | Conv4Strided:
    """With running statistics that are not those of the images, nor 0 and 1."""
    torch.manual_seed(0)
    network = model(Facts(image_shape=(1, 8, 8), n_classes=9, n_way=3), widths=widths)
    generator = torch.Generator().manual_seed(1)
    for name, buffer in network.named_buffers():
        if buffer.is_floating_point():
            spread = torch.rand(buffer.shape, generator=generator)
            buffer.copy_(0.02 + 0.1 * spread if name.endswith("var") else 0.2 * spread - 0.2)  # no channel is silent
    return network


def episode(*, n_way: int = 3, n_episodes: int = 2, shots: int = 2, n_query: int = 4) -> Episode:
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(n_way).repeat_interleave(shots).repeat(n_episodes, 1)  # (E, S)
    marks = torch.rand(n_way, 1, 8, 8, generator=generator)
    query_labels = torch.randint(n_way, (n_episodes, n_query), generator=generator)
    support = marks[labels] + 0.5 * torch.rand(*labels.shape, 1, 8, 8, generator=generator)
    query = marks[query_labels] + 0.5 * torch.rand(*query_labels.shape, 1, 8, 8, generator=generator)
    return Episode(support, labels, query, query_labels, n_way)


def fitted_by_optimiser(
    network: nn.Module, images: Tensor, labels: Tensor, *, n_way: int, lr: float, steps: int, reduction: str = "mean",
    squares: list[Tensor] | None = None, count: int = 0,
) -> nn.Sequential:  # fmt: skip
    """The slow way: a deep copy with a linear head, trained by torch.optim with batch norm in training mode.

    By SGD, or with `squares`, one tensor a weight and the head's last, by Adam without momentum that has taken `count`
    steps already.
    """
    head = nn.Linear(network.out_features, n_way, bias=False)
    nn.init.zeros_(head.weight)
    model = nn.Sequential(copy.deepcopy(network), head)
    model.train()
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    if squares is not None:
        optimizer = torch.optim.Adam(model.parameters(), lr=lr, betas=(0.0, 0.999))
        for weight, square in zip(model.parameters(), squares, strict=True):
            optimizer.state[weight] = {
                "step": torch.tensor(float(count)), "exp_avg": torch.zeros_like(weight),
                "exp_avg_sq": square.expand_as(weight).clone(),
            }  # fmt: skip
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels, reduction=reduction).backward()
        optimizer.step()
    return model


def centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(dim=-1, keepdim=True)
