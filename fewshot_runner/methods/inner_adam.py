"""Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980) for inner loops, as Reptile's experiments used it.

Without momentum (beta 1 is 0), which would carry one task's direction into the next; the second moments do carry
over, so that a new task starts with a scale for each weight. The head has none of its own yet: its rows, alike until
a task tells them apart, share the moments of one row.

Shape legend: N ways, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

BETA = 0.999
EPSILON = 1e-8


@dataclass
class Moments:
    """`squares` of each adapted tensor, averaged with weights that sum to 1 - BETA ** `count`."""

    squares: list[Tensor]
    count: Tensor

    def directions(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Updates the moments, then divides each gradient, the head's (N, D) last, by the root of its own."""
        self.count = self.count + 1
        *weights, head = (gradient.detach() for gradient in gradients)
        current = [*(weight.square() for weight in weights), head.square().mean(dim=0)]  # (...), last (D,)
        self.squares = torch._foreach_lerp(self.squares, current, 1 - BETA)
        scale = (1 - BETA**self.count).sqrt()
        return [
            gradient / (square.sqrt() / scale + EPSILON)
            for gradient, square in zip((*weights, head), self.squares, strict=True)
        ]


class InnerAdam(nn.Module):
    """The moments between tasks, as buffers: they are part of what is learned."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        weights = [weight for weight in backbone.parameters() if weight.requires_grad]
        self.n_squares = len(weights) + 1
        for number, weight in enumerate(weights):
            self.register_buffer(f"square_{number}", torch.zeros_like(weight))
        some = weights[0] if weights else torch.zeros(())
        self.register_buffer(f"square_{len(weights)}", some.new_zeros(backbone.out_features))
        self.register_buffer("count", some.new_zeros(()))

    def moments(self) -> Moments:
        """To go on with; `self` stays as it is until `keep`."""
        return Moments([self.get_buffer(f"square_{number}") for number in range(self.n_squares)], self.count)

    def keep(self, moments: Moments) -> None:
        for number, square in enumerate(moments.squares):
            self.get_buffer(f"square_{number}").copy_(square)
        self.count.copy_(moments.count)
