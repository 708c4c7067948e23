"""Raw pixels as an embedding."""

import torch

from fewshot_runner.facts import Facts
from fewshot_runner.models.pixels import Pixels


def test_the_embedding_is_the_image() -> None:
    model = Pixels(Facts(image_shape=(3, 4, 5), n_classes=2, n_way=2))
    images = torch.arange(2 * 3 * 4 * 5).float().view(2, 3, 4, 5)
    features = model(images)
    assert model.out_features == 60
    assert features.shape == (2, 60)
    assert features[1, 1 * 20 + 2 * 5 + 3] == images[1, 1, 2, 3]
    assert not list(model.parameters())
