"""What methods share that learn a metric: an embedding in which images of one class lie near each other.

Shapes: as in base.py.
"""

from torch import Tensor, nn

from fewshot_runner.data.batch import Batch
from fewshot_runner.errors import UserError
from fewshot_runner.methods.base import EmbeddingMethod
from fewshot_runner.methods.distances import check_distance, nearest_support
from fewshot_runner.models.precision import at_least_float32


class MetricMethod(EmbeddingMethod):
    """A query belongs to the class of its nearest support image; the loss is the subclass's.

    `embedding`: features of a linear layer after the backbone; 0 for none. `distance`: "l2" or "cosine".
    """

    learns_from = (Batch,)

    def __init__(self, backbone: nn.Module, *, embedding: int, distance: str) -> None:
        super().__init__()
        if embedding < 0:
            raise UserError(f"embedding={embedding}: give 0 (no linear layer) or a number of features")
        self.backbone = backbone
        self.embedding = nn.Linear(backbone.out_features, embedding) if embedding else nn.Identity()
        self.distance = check_distance(distance)

    def embed(self, images: Tensor) -> Tensor:
        return at_least_float32(self.embedding(self.backbone(images)))  # (B, D)

    def score(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        return nearest_support(support, support_labels, query, n_way, self.distance)  # (E, Q, N)
