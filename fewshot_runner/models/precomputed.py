"""A frozen backbone whose features may be computed beforehand."""

from torch import Tensor, nn


class Precomputed(nn.Module):
    """Passes features through as they are, and images through `network`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.out_features = network.out_features

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), or their features (B, D) to (B, D)."""
        return images if images.dim() == 2 else self.network(images)
