"""Features instead of images."""

import torch
from torch import nn

from fewshot_runner.models.precomputed import Precomputed


class Means(nn.Module):
    out_features = 3

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)) * 2


def test_features_pass_and_images_become_features() -> None:
    network = Precomputed(Means())
    features, images = torch.randn(4, 3), torch.randn(4, 3, 5, 5)
    assert network.out_features == 3
    assert torch.equal(network(features), features)
    assert torch.equal(network(images), Means()(images))
    assert torch.equal(network(network(images)), network(images))
