"""What methods that learn a metric share, against loops.

Shapes: B images, D features.
"""

import inspect

import pytest
import torch
from torch import Tensor, nn

from fewshot_runner.data.batch import Episode
from fewshot_runner.methods.contrastive import Contrastive
from fewshot_runner.methods.metric import MetricMethod
from fewshot_runner.methods.triplet import Triplet

LEARNERS = pytest.mark.parametrize("learner", [Contrastive, Triplet])


class Flat(nn.Module):
    out_features = 4

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0, 0.5, 1.0]))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) * self.weight


@LEARNERS
def test_runs_that_are_saved_find_their_weights_and_options(learner: type[MetricMethod]) -> None:
    layered, plain = (learner(Flat(), embedding=width, distance="l2", margin=0.5).state_dict() for width in (3, 0))
    assert list(layered) == ["backbone.weight", "embedding.weight", "embedding.bias"]
    assert list(plain) == ["backbone.weight"]
    assert {"backbone", "embedding", "distance", "margin"} <= set(inspect.signature(learner).parameters)


@LEARNERS
@pytest.mark.parametrize("embedding", [0, 3])
@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_a_query_belongs_to_the_class_of_its_nearest_image(
    learner: type[MetricMethod], embedding: int, distance: str
) -> None:
    torch.manual_seed(0)
    method = learner(Flat(), embedding=embedding, distance=distance, margin=0.5).eval()
    labels = torch.tensor([[0, 1, 2, 1, 0]])
    task = Episode(torch.randn(1, 5, 1, 2, 2), labels, torch.randn(1, 20, 1, 2, 2), torch.zeros(1, 20).long(), 3)
    with torch.no_grad():
        answers = method.classify(task)[0].argmax(-1)
    weights = list(method.parameters())

    def embedded(image: Tensor) -> Tensor:
        features = image.flatten() * weights[0].detach()
        return weights[1].detach() @ features + weights[2].detach() if embedding else features

    for query, answer in zip(task.query[0], answers, strict=True):
        one = embedded(query)
        apart = []
        for image in task.support[0]:
            other = embedded(image)
            cosine = (one * other).sum() / (one.norm() * other.norm())
            apart.append(float((one - other).norm() if distance == "l2" else 1 - cosine))
        assert int(answer) == int(labels[0, apart.index(min(apart))])
