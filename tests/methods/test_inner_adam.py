"""InnerAdam against torch.optim.Adam."""

import torch
from torch import nn

from fewshot_runner.methods.inner_adam import InnerAdam

D = 3


def backbone() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, D))
    network.out_features = D
    network[0].bias.requires_grad_(False)
    return network


def gradients(network: nn.Module, n_way: int, generator: torch.Generator) -> list[torch.Tensor]:
    shapes = [weight.shape for weight in network.parameters() if weight.requires_grad]
    return [torch.randn(shape, generator=generator) for shape in (*shapes, (n_way, D))]


def test_directions_equal_adam_without_momentum_over_tasks() -> None:
    """Three tasks of four steps: one optimiser whose state outlives the tasks, as in the original."""
    network, generator = backbone(), torch.Generator().manual_seed(1)
    adam = InnerAdam(network)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=1.0, betas=(0.0, 0.999), eps=1e-8)
    for _ in range(3):
        moments = adam.moments()
        for _ in range(4):
            current = gradients(network, 4, generator)
            before = [weight.detach().clone() for weight in weights]
            for weight, gradient in zip(weights, current[:-1], strict=True):
                weight.grad = gradient
            optimizer.step()
            directions = moments.directions(current)
            for weight, old, direction in zip(weights, before, directions[:-1], strict=True):
                torch.testing.assert_close(old - weight, direction, rtol=1e-4, atol=1e-5)
        adam.keep(moments)


def test_the_rows_of_a_head_share_the_mean_of_their_squares() -> None:
    network, generator = backbone(), torch.Generator().manual_seed(1)
    moments, squares = InnerAdam(network).moments(), torch.zeros(D)
    for step, n_way in enumerate((4, 4, 2), start=1):  # the number of ways is free
        current = gradients(network, n_way, generator)
        squares = 0.999 * squares + 0.001 * sum(row**2 for row in current[-1]) / n_way
        expected = current[-1] / (squares / (1 - 0.999**step)).sqrt()
        torch.testing.assert_close(moments.directions(current)[-1], expected, rtol=1e-3, atol=1e-5)


def test_only_keep_changes_what_the_next_task_starts_with() -> None:
    network, generator = backbone(), torch.Generator().manual_seed(1)
    adam = InnerAdam(network)
    before = {name: buffer.clone() for name, buffer in adam.state_dict().items()}
    assert before["count"] == 0
    moments = adam.moments()
    moments.directions(gradients(network, 4, generator))
    assert all(torch.equal(buffer, before[name]) for name, buffer in adam.state_dict().items())
    adam.keep(moments)
    after = adam.state_dict()
    assert after["count"] == 1
    assert all(buffer.ne(before[name]).all() for name, buffer in after.items())
    again = InnerAdam(network)
    again.load_state_dict(after)  # a resumed run goes on from the same moments
    current = gradients(network, 4, generator)
    for left, right in zip(adam.moments().directions(current), again.moments().directions(current), strict=True):
        assert torch.equal(left, right)


def test_a_weight_that_never_had_a_gradient_stays() -> None:
    network = backbone()
    current = [torch.zeros_like(weight) for weight in network.parameters() if weight.requires_grad]
    directions = InnerAdam(network).moments().directions([*current, torch.zeros(4, D)])
    assert all(direction.eq(0).all() for direction in directions)
