"""Siamese Neural Networks for One-shot Image Recognition (Koch, Zemel and Salakhutdinov 2015): the paper's network.

https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf. Four valid convolutions with ReLU, the first three followed by
2x2 max pooling, and a linear layer with sigmoid. At 105 px, 9,216 numbers go into the linear layer and 4,096 come
out. The paper's head is `SignedL1`. Smaller images need smaller `kernels`; fewer `widths` and `features` cost less.

Initial values are the paper's: weights N(0, 0.01) in convolutions and N(0, 0.2) in the linear layer, biases
N(0.5, 0.01), where the second number is the standard deviation.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts


class Koch(nn.Module):
    """(B, C, H, W) to (B, features), each between 0 and 1."""

    def __init__(
        self,
        facts: Facts,
        *,
        widths: Sequence[int] = (64, 128, 128, 256),
        kernels: Sequence[int] = (10, 7, 4, 4),
        features: int = 4096,
    ) -> None:
        super().__init__()
        if len(widths) != 4 or len(kernels) != 4 or min(*widths, *kernels, features) < 1:
            raise UserError(
                f"model.widths={list(widths)} model.kernels={list(kernels)} model.features={features}: "
                "give four widths, four kernel sizes and a number of features, each 1 or more"
            )
        channels, height, width = facts.image_shape
        layers: list[nn.Module] = []
        for number, (inputs, outputs, kernel) in enumerate(zip([channels, *widths[:-1]], widths, kernels, strict=True)):
            layers += [nn.Conv2d(inputs, outputs, kernel), nn.ReLU()]
            height, width = height - kernel + 1, width - kernel + 1
            if number < 3:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            if min(height, width) < 1:
                raise UserError(
                    f"dataset.image_size={min(facts.image_shape[1:])}: nothing is left of the image after kernels of "
                    f"{list(kernels)} pixels; give larger images, or smaller model.kernels such as [5,3,2,2]"
                )
        linear = nn.Linear(widths[-1] * height * width, features)
        self.layers = nn.Sequential(*layers, nn.Flatten(), linear, nn.Sigmoid())
        self.out_features = features
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                initialise(layer.weight, layer.bias, spread=0.01 if isinstance(layer, nn.Conv2d) else 0.2)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)  # (B, D)


def initialise(weight: Tensor, bias: Tensor, *, spread: float) -> None:
    """The paper's normal distributions; `spread` is the standard deviation of the weights."""
    nn.init.normal_(weight, 0, spread)
    nn.init.normal_(bias, 0.5, 0.01)
