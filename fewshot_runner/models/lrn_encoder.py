"""An AlexNet-like encoder with local response normalisation: SigNet (Dey et al. 2017) and a last linear layer.

https://arxiv.org/abs/1707.02131. Made to tell forged signatures from genuine ones, and since copied into tutorials
on siamese networks, where a third linear layer gives an embedding that can be plotted. Convolutions 96@11x11,
256@5x5, 384@3x3 and 256@3x3 with stride 1, 3x3 max pooling with stride 2 after all but the third, local response
normalisation (Krizhevsky et al. 2012) after the first two. Dropout on the maps drops whole channels, as in those
tutorials.

Shapes: B images, D = features[-1].
"""

from collections.abc import Sequence

from torch import Tensor, nn

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts


class LrnEncoder(nn.Module):
    """`features` of the linear layers; `dropout` on the maps and `linear_dropout` after the first linear layer."""

    def __init__(
        self,
        facts: Facts,
        *,
        features: Sequence[int] = (1024, 128, 2),
        dropout: float = 0.3,
        linear_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        channels, height, width = facts.image_shape
        if not features or min(features) < 1:
            raise UserError(f"model.features={list(features)}: give the size of each linear layer, 1 or more")
        if min(height, width) < 25:
            raise UserError(f"dataset.image_size={min(height, width)}: this network needs 25 pixels or more")
        height, width = height - 10, width - 10  # the first convolution alone is valid
        for _ in range(3):
            height, width = (height - 1) // 2, (width - 1) // 2  # windows of 3, two apart
        layers: list[nn.Module] = [
            nn.Conv2d(channels, 96, 11), nn.ReLU(), _response_norm(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(96, 256, 5, padding=2), nn.ReLU(), _response_norm(), nn.MaxPool2d(3, stride=2),
            nn.Dropout2d(dropout),
            nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            nn.Dropout2d(dropout), nn.Flatten(),
        ]  # fmt: skip
        for number, (inputs, outputs) in enumerate(zip([256 * height * width, *features], features, strict=False)):
            if number > 0:
                layers.append(nn.ReLU())
            if number == 1:
                layers.append(nn.Dropout(linear_dropout))
            layers.append(nn.Linear(inputs, outputs))
        self.layers = nn.Sequential(*layers)
        self.out_features = features[-1]

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)  # (B, D)


def _response_norm() -> nn.LocalResponseNorm:
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2)  # AlexNet's values
