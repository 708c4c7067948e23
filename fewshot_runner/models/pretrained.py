"""Networks of other libraries as backbones: the classifier taken off, and as much of the rest frozen as asked for.

A frozen part takes no gradient and stays in evaluation mode whatever mode is asked of the whole. Otherwise its batch
norms would go on to follow the images that pass, and the "frozen" features would drift with every training step.

Shapes: B images, D features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor, nn

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts


@dataclass(frozen=True)
class Standard:
    """The mean and standard deviation of each channel that images were standardised with."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Pretrained(nn.Module):
    """`network` maps (B, C, H, W) to (B, D). Modules named in `thaw`, and all inside them, train although `frozen`.

    `standard` is that of the images that published weights were trained on; None for random weights.
    """

    def __init__(
        self,
        facts: Facts,
        network: nn.Module,
        *,
        name: str,
        frozen: bool,
        thaw: Sequence[str],
        standard: Standard | None = None,
    ) -> None:
        super().__init__()
        self.standard = standard
        check_channels(facts, network, name)
        if thaw and not frozen:
            raise UserError(f"model.thaw={list(thaw)}: all of {name} trains already; add model.frozen=true")
        modules = dict(network.named_modules())
        for part in thaw:
            if not part or part not in modules or not any(True for _ in modules[part].parameters()):
                raise UserError(
                    f"model.thaw={list(thaw)}: {name} has no trainable part {part!r}; there is "
                    + ", ".join(child for child, module in network.named_children() if list(module.parameters()))
                )
        self.network = network
        self.frozen = frozen
        self.thaw = tuple(thaw)
        network.requires_grad_(not frozen)
        for part in thaw:
            modules[part].requires_grad_(True)
        self.out_features = width_of(network, facts, name)
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)  # (B, D)

    def train(self, mode: bool = True) -> "Pretrained":
        super().train(mode)
        if self.frozen:
            self.network.eval()
            for part in self.thaw:
                self.network.get_submodule(part).train(mode)
        return self


def standardised_otherwise(backbone: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None) -> list[str]:
    """A remark where published weights in `backbone` were trained on images of another standard; one value of `mean` or
    `std` is that of all channels.
    """
    said = []
    for part in backbone.modules():
        if isinstance(part, Pretrained) and (standard := part.standard) is not None:
            pairs = [*zip(standard.mean, cycle(mean or [0])), *zip(standard.std, cycle(std or [1]))]
            if not all(math.isclose(one, other, abs_tol=0.01) for one, other in pairs):
                wanted = (f"'dataset.{key}=[{','.join(map(str, getattr(standard, key)))}]'" for key in ("mean", "std"))
                said.append(f"the weights expect {' '.join(wanted)}; with others their features suffer")
    return said


def trained_by_others(backbone: nn.Module) -> list[str]:
    """A remark on published weights in `backbone`, for tests that are meant to show it classes for the first time."""
    published = any(isinstance(part, Pretrained) and part.standard is not None for part in backbone.modules())
    return [
        "the weights were trained on the pictures of others (such as ImageNet): classes of the test may be among "
        "theirs, so do not compare its figures with those of networks trained on the train part alone"
    ] * published


def without_classifier(network: nn.Module) -> nn.Module:
    """`network`, changed in place, without its last linear layer and the dropout right before it.

    Raises `ValueError` where there is no linear layer.
    """
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError("it ends in no linear layer")
    where, _, child = linear[-1].rpartition(".")
    parent = network.get_submodule(where)
    setattr(parent, child, nn.Identity())
    if isinstance(parent, nn.Sequential):
        siblings = [name for name, _ in parent.named_children()]
        before = siblings[max(siblings.index(child) - 1, 0)]
        if isinstance(getattr(parent, before), nn.Dropout):
            setattr(parent, before, nn.Identity())
    return network


def check_channels(facts: Facts, network: nn.Module, name: str) -> None:
    channels = facts.image_shape[0]
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and channels != first.in_channels:
        raise UserError(
            f"dataset.channels={channels}: {name} takes images of {first.in_channels} channels; "
            f"set dataset.channels={first.in_channels}, which repeats a grey channel"
        )


@torch.no_grad()
def width_of(network: nn.Module, facts: Facts, name: str) -> int:
    """The number of features that come out for one image of the run's size."""
    size = "x".join(str(side) for side in facts.image_shape[1:])
    try:
        features = network.eval()(torch.zeros(1, *facts.image_shape))
    except (RuntimeError, AssertionError, ValueError) as error:  # too few pixels, or a transformer made for one size
        reason = str(error).splitlines()[0]
        raise UserError(f"dataset.image_size={size}: {name} does not take it ({reason}); try 224") from error
    if not isinstance(features, Tensor) or features.dim() != 2:
        raise UserError(f"model.name={name}: it does not give one row of features an image; choose another network")
    return features.shape[1]
