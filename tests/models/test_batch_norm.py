"""Statistics borrowed from chosen images, against networks in training mode and against formulas."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fewshot_runner.data.batch import Episode
from fewshot_runner.facts import Facts
from fewshot_runner.methods.anil import Anil
from fewshot_runner.methods.base import Method
from fewshot_runner.methods.prototypical import Prototypical
from fewshot_runner.models.batch_norm import learning_norms, normalised_by
from fewshot_runner.models.conv4 import Conv4
from fewshot_runner.models.pretrained import Pretrained
from fewshot_runner.models.siamese_cnn import SiameseCnn

SIZE = 16


@pytest.fixture
def network() -> Conv4:
    """In evaluation mode, with running statistics that are nobody's."""
    torch.manual_seed(0)
    network = Conv4(Facts(image_shape=(1, SIZE, SIZE), n_classes=3, n_way=3), widths=(6, 6))
    for name, buffer in network.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape) + (1.5 if "var" in name else -0.5))
    return network.eval()


def images(count: int, seed: int = 1) -> Tensor:
    return torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * seed


def state_of(network: nn.Module) -> tuple:
    hooks = [len(part._forward_pre_hooks) for part in network.modules()]
    return [part.training for part in network.modules()], hooks, {k: v.clone() for k, v in network.state_dict().items()}


def same_state(one: tuple, other: tuple) -> bool:
    return one[:2] == other[:2] and all(torch.equal(value, other[2][key]) for key, value in one[2].items())


def test_the_images_pass_as_in_training_mode(network: Conv4) -> None:
    support = images(5)
    with torch.no_grad(), normalised_by(network, lambda: network(support)) as features:
        trained = copy.deepcopy(network).train()(support)
    torch.testing.assert_close(features, trained)
    with torch.no_grad():
        assert not torch.allclose(features, network(support))


def test_what_passes_meanwhile_is_normalised_by_mean_and_biased_variance() -> None:
    layer = nn.BatchNorm2d(2).eval()
    support, query = images(3).expand(3, 2, -1, -1) * torch.tensor([1.0, 3.0])[:, None, None], images(4, seed=2)
    query = query.expand(4, 2, -1, -1)
    with torch.no_grad(), normalised_by(layer, lambda: layer(support)):
        answer = layer(query)
    for channel in range(2):
        values = support[:, channel].flatten().double()
        mean = values.sum() / len(values)
        variance = ((values - mean) ** 2).sum() / len(values)  # divided by all, not by all but one
        expected = (query[:, channel].double() - mean) / (variance + layer.eps).sqrt()
        torch.testing.assert_close(answer[:, channel].double(), expected, rtol=1e-4, atol=1e-5)


def test_images_one_by_one_or_together_are_the_same(network: Conv4) -> None:
    support, query = images(5), images(7, seed=2)
    with torch.no_grad(), normalised_by(network, lambda: network(support)):
        together = network(query)
        apart = torch.cat([network(image[None]) for image in query])
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("where", ["forward", "block", None])
def test_everything_is_as_before_even_after_an_error(network: Conv4, where: str | None) -> None:
    network.blocks[1].train()  # a mode of its own
    before = state_of(network)

    def forward() -> Tensor:
        output = network(images(3))
        if where == "forward":
            raise ZeroDivisionError
        return output

    def use() -> None:
        with torch.no_grad(), normalised_by(network, forward):
            network(images(2))
            if where == "block":
                raise ZeroDivisionError

    if where is None:
        use()
    else:
        with pytest.raises(ZeroDivisionError):
            use()
    assert same_state(before, state_of(network))


def test_a_layer_without_running_statistics_borrows_them_as_well() -> None:
    """In evaluation mode such a layer would look at the images that come together."""
    layer = nn.BatchNorm1d(3, track_running_stats=False).eval()
    support, query = torch.randn(6, 3), torch.randn(4, 3)
    with torch.no_grad(), normalised_by(layer, lambda: layer(support)):
        together, apart = layer(query), torch.cat([layer(row[None]) for row in query])
    torch.testing.assert_close(together, apart)
    assert layer.running_mean is None
    assert layer.running_var is None


def episode(seed: int = 3) -> Episode:
    """Two tasks whose images differ in brightness, so that their statistics do."""
    random = torch.Generator().manual_seed(seed)
    support, query = (
        torch.rand(2, 6, 1, SIZE, SIZE, generator=random),
        torch.rand(2, 8, 1, SIZE, SIZE, generator=random),
    )
    labels = torch.arange(3).repeat(2, 2)
    return Episode(support, labels, 2 * query, torch.arange(8).remainder(3).expand(2, 8), 3)


def one_by_one(method: Prototypical, task: Episode) -> Tensor:
    each = [
        method.classify(Episode(task.support, task.support_labels, task.query[:, [q]], task.query_labels[:, [q]], 3))
        for q in range(task.query.shape[1])
    ]
    return torch.cat(each, dim=1)


def one_task_at_a_time(method: Prototypical, task: Episode) -> Tensor:
    return torch.cat([method.classify(task[number : number + 1]) for number in range(2)])


@pytest.fixture
def classify(network: Conv4) -> Callable[[str], Prototypical]:
    def make(bn_mode: str) -> Prototypical:
        method = Prototypical(network, distance="euclidean").eval()
        method.bn_mode = bn_mode
        return method

    return make


@pytest.mark.parametrize(("bn_mode", "alone"), [("running", True), ("support", True), ("transductive", False)])
@torch.no_grad()
def test_trap_04_queries_see_each_other_in_transductive_mode_alone(classify, bn_mode: str, alone: bool) -> None:
    method, task = classify(bn_mode), episode()
    together = method.classify(task)
    assert torch.allclose(together, one_by_one(method, task), atol=1e-3) == alone
    torch.testing.assert_close(together, one_task_at_a_time(method, task))  # tasks never see each other


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]


@torch.no_grad()
def test_each_mode_normalises_by_the_images_it_names(classify, network: Conv4) -> None:
    task = episode()
    for bn_mode in ("support", "transductive"):
        method = classify(bn_mode)
        before = state_of(method)
        answers = method.classify(task)
        assert same_state(before, state_of(method))
        for number in range(2):
            support, query = task.support[number], task.query[number]
            trained = copy.deepcopy(network).train()
            for layer in norms(trained):
                layer.momentum = 1.0  # the running mean becomes the batch's
            if bn_mode == "transductive":
                features = trained(torch.cat([support, query]))
                of_support, of_query = features[:6], features[6:]
            else:
                of_support = trained(support)
                for layer, n_pixels in zip(norms(trained), (16 * 16, 8 * 8), strict=True):
                    n_values = len(support) * n_pixels
                    layer.running_var.mul_((n_values - 1) / n_values)  # torch keeps the unbiased one
                of_query = trained.eval()(query)
            expected = method.score(of_support[None], task.support_labels[[number]], of_query[None], 3)[0]
            torch.testing.assert_close(answers[number], expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_without_batch_norm_no_mode_changes_anything() -> None:
    torch.manual_seed(0)
    backbone = SiameseCnn(Facts(image_shape=(1, 40, 40), n_classes=3, n_way=3))
    method = Prototypical(backbone, distance="euclidean").eval()
    random = torch.Generator().manual_seed(0)
    task = Episode(torch.rand(1, 3, 1, 40, 40, generator=random), torch.tensor([[0, 1, 2]]),
                   torch.rand(1, 4, 1, 40, 40, generator=random), torch.tensor([[0, 1, 2, 0]]), 3)  # fmt: skip
    expected = method.classify(task)
    for bn_mode in ("support", "transductive"):
        method.bn_mode = bn_mode
        torch.testing.assert_close(method.classify(task), expected)


def two_stages() -> nn.Sequential:
    """With running statistics that are nobody's."""
    torch.manual_seed(0)
    stages = [nn.Sequential(nn.Conv2d(inputs, 6, 3), nn.BatchNorm2d(6), nn.ReLU()) for inputs in (1, 6)]
    network = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(2), nn.Flatten())
    for layer in norms(network):
        layer.running_mean.uniform_(1, 2)
        layer.running_var.uniform_(4, 9)
    return network


def pretrained(*, thaw: tuple[str, ...]) -> Pretrained:
    facts = Facts(image_shape=(1, SIZE, SIZE), n_classes=3, n_way=3)
    return Pretrained(facts, two_stages(), name="toy", frozen=True, thaw=thaw)


def test_learning_norms_are_those_whose_weights_are_not_frozen() -> None:
    """The mode says nothing: an evaluator sets it for every layer."""
    network = two_stages()
    for mode in (True, False):
        assert learning_norms(network.train(mode)) == norms(network)
    network[0].requires_grad_(False)
    assert learning_norms(network) == norms(network)[1:]
    weightless = nn.BatchNorm2d(6, affine=False)
    assert learning_norms(weightless) == [weightless]


@pytest.mark.parametrize("learner", [partial(Prototypical, distance="euclidean"), Anil])
@pytest.mark.parametrize("bn_mode", ["running", "support", "transductive"])
@torch.no_grad()
def test_frozen_batch_norm_keeps_its_statistics_in_every_mode(learner: Callable[..., Method], bn_mode: str) -> None:
    """A thawed layer after it does not."""
    backbone = pretrained(thaw=("1",))
    seen, kept = [], copy.deepcopy(norms(backbone.eval()))
    for layer in norms(backbone):
        layer.register_forward_hook(lambda layer, inputs, output: seen.append((layer, inputs[0], output)))
    method = learner(backbone).eval()
    method.bn_mode = bn_mode
    method.classify(episode())
    frozen, learning = norms(backbone)
    same = {frozen: [], learning: []}
    for layer, maps, output in seen:
        twin = kept[norms(backbone).index(layer)]
        same[layer].append(torch.allclose(twin(maps), output, atol=1e-5))
    assert all(same[frozen])
    assert all(same[learning]) == (bn_mode == "running")


@torch.no_grad()
def test_no_mode_changes_the_answers_of_a_wholly_frozen_backbone() -> None:
    backbone = pretrained(thaw=())
    method = Prototypical(backbone, distance="euclidean").eval()
    expected = method.classify(episode())
    for bn_mode in ("support", "transductive"):
        method.bn_mode = bn_mode
        torch.testing.assert_close(method.classify(episode()), expected)
    backbone.requires_grad_(True)
    assert not torch.allclose(method.classify(episode()), expected, atol=1e-3)
