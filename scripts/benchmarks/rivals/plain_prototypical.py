"""Prototypical networks in plain PyTorch: one tensor in memory, indices drawn by torch, and a loop.

Shapes: I images, N ways, K shots, Q queries a class.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Training:
    """`images` (I, C, H, W), those of class c from `offsets[c]` to `offsets[c + 1]`. So many episodes at a time."""

    def __init__(
        self, network: nn.Module, images: Tensor, offsets: Tensor, *, n_way: int, n_shot: int, n_query: int,
        lr: float = 1e-3,
    ) -> None:  # fmt: skip
        self.network = network.train()
        self.images = images
        self.offsets = offsets
        self.n_way, self.n_shot, self.n_query = n_way, n_shot, n_query
        self.optimizer = torch.optim.Adam(network.parameters(), lr=lr)

    def __call__(self, episodes: int) -> None:
        for _ in range(episodes):
            self.optimizer.zero_grad()
            loss = self.loss(self.images[self.draw()])
            loss.backward()
            self.optimizer.step()
            loss.item()

    def draw(self) -> Tensor:
        """(N, K + Q) indices."""
        classes = torch.randperm(len(self.offsets) - 1)[: self.n_way].tolist()
        rows = []
        for label in classes:
            start, stop = self.offsets[label : label + 2].tolist()
            rows.append(start + torch.randperm(stop - start)[: self.n_shot + self.n_query])
        return torch.stack(rows)

    def loss(self, images: Tensor) -> Tensor:
        """(N, K + Q, C, H, W) to the loss of the queries."""
        features = self.network(images.flatten(0, 1)).unflatten(0, images.shape[:2])  # (N, K + Q, D)
        prototypes = features[:, : self.n_shot].mean(dim=1)  # (N, D)
        query = features[:, self.n_shot :].flatten(0, 1)  # (N Q, D)
        labels = torch.arange(self.n_way).repeat_interleave(self.n_query)
        return functional.cross_entropy(-torch.cdist(query, prototypes).square(), labels)
