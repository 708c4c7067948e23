"""Any classification network of torchvision as a backbone, with its published weights or untrained.

Weights go by torchvision's names (https://docs.pytorch.org/vision/stable/models.html). The first use downloads them
to the folder of torch hub; a file put there by hand serves as well.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.models.pretrained import Pretrained, Standard, without_classifier


class Torchvision(Pretrained):
    """`weights=None` makes the same network with random weights and downloads nothing."""

    def __init__(
        self, facts: Facts, *, name: str, weights: str | None = None, frozen: bool = False, thaw: Sequence[str] = ()
    ) -> None:
        from torchvision import models  # imports every network there is: only where one is wanted

        known = models.list_models(module=models)
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3) or known
            raise UserError(f"model.name={name}: torchvision has no such network; there is {', '.join(close)}")
        network = models.get_model(name, weights=None)
        if getattr(network, "aux_logits", False):
            raise UserError(f"model.name={name}: it answers with several outputs; use the one of timm (model=timm)")
        standard = None if weights is None else _load_published(network, name, weights)
        try:
            network = without_classifier(network)
        except ValueError as error:
            raise UserError(f"model.name={name}: {error} that could be taken off; choose another network") from error
        super().__init__(facts, network, name=name, frozen=frozen, thaw=thaw, standard=standard)


def _load_published(network: nn.Module, name: str, weights: str) -> Standard:
    """torchvision itself would unpickle whatever the file holds; here it may hold tensors alone."""
    from torchvision import models

    there_are = models.get_model_weights(name).__members__
    if weights not in there_are:
        raise UserError(f"model.weights={weights}: for {name} there is {', '.join(there_are) or 'nothing'}, or null")
    published = there_are[weights]
    file = Path(torch.hub.get_dir(), "checkpoints", published.url.rpartition("/")[2])
    try:
        state = published.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # no network, a bad checksum, a damaged file: each raises its own
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(
            f"model.weights={weights}: cannot load {published.url} ({reason}); put that file, whole, at {file}, or use "
            "model.weights=null (untrained) or model=efficientnet_lite0 (weights from a package)"
        ) from error
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"model.weights={weights}: {file} holds another network than {name}; remove the file if it was put there "
            "by hand, or choose other weights or the network of timm (model=timm)"
        ) from error
    preset = published.transforms()
    return Standard(tuple(preset.mean), tuple(preset.std))
