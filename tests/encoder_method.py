"""A method of a user's own that calls its network otherwise than ours do."""

from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.data.batch import Batch
from fewshot_runner.facts import Facts
from fewshot_runner.methods.base import EmbeddingMethod, class_means


class Encoder(EmbeddingMethod):
    """A linear layer on a frozen or trained `encoder`; a query belongs to the class whose mean it is most alike.

    Shapes: as in methods/base.py.
    """

    learns_from = (Batch,)

    def __init__(self, facts: Facts, backbone: nn.Module, *, frozen: bool) -> None:
        super().__init__()
        self.encoder = backbone.requires_grad_(not frozen)
        self.head = nn.Linear(backbone.out_features, facts.n_classes)

    def embed(self, images: Tensor) -> Tensor:
        return self.encoder(images)  # (B, D)

    def score(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        return query @ class_means(support, support_labels, n_way).mT  # (E, Q, N)

    def loss(self, batch: Batch) -> Tensor:
        return functional.cross_entropy(self.head(self.embed(batch.images)), batch.labels)
