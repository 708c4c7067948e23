"""Any network of timm (https://github.com/huggingface/pytorch-image-models) as a backbone.

Needs the extra `timm`. The first use of pretrained weights downloads them from the Hugging Face hub.
"""

import difflib
from collections.abc import Sequence

from fewshot_runner.errors import UserError
from fewshot_runner.extras import imported
from fewshot_runner.facts import Facts
from fewshot_runner.models.pretrained import Pretrained, Standard


class Timm(Pretrained):
    """`weights` is the tag after the dot of timm's names (`a1_in1k` of `resnet50.a1_in1k`); `default` takes timm's own.

    `weights=None` makes the same network with random weights and downloads nothing.
    """

    def __init__(
        self, facts: Facts, *, name: str, weights: str | None = None, frozen: bool = False, thaw: Sequence[str] = ()
    ) -> None:
        timm = imported("timm", extra="timm", asked_by=f"model.name={name}")  # takes seconds: only where it is wanted
        bare, _, tag = name.partition(".")
        if tag:
            raise UserError(f"model.name={name}: give the tag apart, as in model.name={bare} model.weights={tag}")
        if not timm.is_model(name):
            close = difflib.get_close_matches(name, timm.list_models(), n=3)
            raise UserError(f"model.name={name}: timm has no such network; there is {', '.join(close) or 'resnet18'}")
        tags = [full.partition(".")[2] for full in timm.list_models(f"{name}.*", pretrained=True)]
        if weights is not None and weights not in ("default", *tags):
            raise UserError(f"model.weights={weights}: for {name} there is {', '.join(['default', *tags])}, or null")
        full = name if weights in (None, "default") else f"{name}.{weights}"
        try:
            network = timm.create_model(full, pretrained=weights is not None, num_classes=0)
        except Exception as error:  # no network, a damaged file: each raises its own
            if weights is None:
                raise
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise UserError(
                f"model.weights={weights}: cannot load {full} ({reason}); it is downloaded once, to the folder that "
                "HF_HOME names; without a network use model.weights=null "
                "(untrained) or model=efficientnet_lite0 (weights from a package)"
            ) from error
        made = network.pretrained_cfg
        standard = None if weights is None else Standard(tuple(made["mean"]), tuple(made["std"]))
        super().__init__(facts, network, name=name, frozen=frozen, thaw=thaw, standard=standard)
