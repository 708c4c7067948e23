"""The features of a frozen backbone, computed once, in the place of images.

Shapes: B indices, M images of a part, D features.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fewshot_runner.data.loader import Viewer
from fewshot_runner.data.transfer import to_device
from fewshot_runner.engine.device import Hardware
from fewshot_runner.models.precision import at_least_float32

PHOTOGRAPHS_AT_ONCE = 64


class FeatureViewer:
    """Stands where a `Viewer` does: indices (B,) of images in any of `parts`, each (M,), to features (B, D).

    A part is computed when the first of its images is asked for, always in the same chunks, so that a run that is
    resumed sees the same bits. `pictures` is the viewer of the images themselves.
    """

    def __init__(self, viewer: Viewer, backbone: nn.Module, parts: Sequence[Tensor], hardware: Hardware) -> None:
        self.pictures = viewer
        self.device = viewer.device
        self.backbone = backbone
        self.hardware = hardware
        self.waiting = [part.unique() for part in parts]
        self.row = torch.full((1 + max(int(part.max()) for part in parts),), -1)  # of each image, -1 while it has none
        self.features: Tensor | None = None

    def __call__(self, index: Tensor) -> Tensor:
        index = index.cpu()
        rows = self.row[index]
        if (rows < 0).any():
            for part in [part for part in self.waiting if torch.isin(index, part).any()]:
                self._compute(part)
            rows = self.row[index]
            assert (rows >= 0).all(), "an image of no part"
        return self.features[to_device(rows, self.device)]

    def augmented(self, index: Tensor, augment: None, generator: torch.Generator) -> Tensor:
        """What training sees: the same, as features are of the images as they are."""
        assert augment is None, "features cannot be augmented"
        return self(index)

    def _compute(self, part: Tensor) -> None:
        with self.hardware.inference(self.backbone):
            outputs = [self.backbone(self.pictures(chunk)) for chunk in part.split(PHOTOGRAPHS_AT_ONCE)]
        chunks = [at_least_float32(output) for output in outputs]
        done = [] if self.features is None else [self.features]
        self.row[part] = torch.arange(len(part)) + sum(map(len, done))
        self.features = torch.cat(done + chunks)  # (images so far, D)
        self.waiting = [other for other in self.waiting if other is not part]


AnyViewer = Viewer | FeatureViewer  # what evaluation asks for an image's pixels, or for its features
View = Callable[[str], AnyViewer]  # of a part
