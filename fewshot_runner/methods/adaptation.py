"""A copy of a backbone with a new linear head, as MAML and Reptile fit it to one task.

The head begins at zero and has no bias. A starting row for each way would have to know which class comes first; one
row shared by all ways adds the same to each logit, which changes neither an answer nor a gradient. So zero is all
that is left, the number of ways is free, and renaming the classes renames the answers.

Shape legend: E episodes, N ways, S support images, Q queries, D features, B images.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.data.batch import Episode
from fewshot_runner.errors import UserError
from fewshot_runner.methods.base import evaluating, round_logits
from fewshot_runner.methods.side_by_side import of_each_task
from fewshot_runner.models.batch_norm import learning_norms, normalised_by
from fewshot_runner.models.conv_block import differentiated_twice
from fewshot_runner.models.precision import full_precision

Places = dict[str, list[tuple[dict[str, Tensor | None], str]]]  # the dict of a module that holds it, and its key there

TIE = 2**-16  # of what inner steps can make of a logit, and of 1: what float32 does not resolve of them


@dataclass(frozen=True)
class TaskNetwork:
    """Weights and buffers that stand in for the backbone's own, and a head (N, D). Steps make new ones of it.

    Batch norm in training mode updates `buffers`, never the backbone's. Frozen weights stay the backbone's own.
    `places` is where the backbone keeps what they stand in for.
    `at_start` says that the head is still zero. Then it passes nothing back to the weights, whose gradient is exactly
    zero, so the backward pass through the backbone is left out.
    """

    backbone: nn.Module
    weights: dict[str, Tensor]
    buffers: dict[str, Tensor]
    head: Tensor
    places: Places
    at_start: bool = False

    @classmethod
    def copy_of(cls, backbone: nn.Module, n_way: int, *, images: Tensor) -> "TaskNetwork":
        """The start of every task. Its weights are the backbone's, so that gradients flow back to them.

        The head is on the device of `images`, and of the type of the weights, or of `images` where there are none.
        """
        like = next(backbone.parameters(), images)
        return cls(
            backbone,
            weights={name: weight for name, weight in backbone.named_parameters() if weight.requires_grad},
            buffers={name: buffer.clone() for name, buffer in backbone.named_buffers()},
            head=torch.zeros(n_way, backbone.out_features, dtype=like.dtype, device=images.device, requires_grad=True),
            places=places_of(backbone),
            at_start=True,
        )

    @property
    def adapted(self) -> list[Tensor]:
        """All that the inner steps change, the head last."""
        return [*self.weights.values(), self.head]

    def logits(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, N)."""
        return self.logits_of(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D)."""
        with standing_in({**self.weights, **self.buffers}, self.places):
            return self.backbone(images)

    def logits_of(self, features: Tensor) -> Tensor:
        """(B, D) to (B, N)."""
        with full_precision(features):
            return features.to(self.head.dtype) @ self.head.T

    def gradients(
        self, images: Tensor, labels: Tensor, *, reduction: str = "mean", create_graph: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The cross-entropy of (B, C, H, W) and labels (B,), and its gradients in the order of `adapted`."""
        if self.at_start:
            return self._first_gradients(images, labels, reduction=reduction, create_graph=create_graph)
        with differentiated_twice(self.backbone, when=create_graph):
            loss = functional.cross_entropy(self.logits(images), labels, reduction=reduction)
        with full_precision(loss):
            return loss.detach(), torch.autograd.grad(loss, self.adapted, create_graph=create_graph)

    def _first_gradients(
        self, images: Tensor, labels: Tensor, *, reduction: str, create_graph: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What `gradients` gives while the head is zero, as then are the gradients of all that lies before it.

        So the features need a graph only where gradients are to be derived again.
        """
        with torch.set_grad_enabled(create_graph):
            features = self.features(images)
        loss = functional.cross_entropy(self.logits_of(features), labels, reduction=reduction)
        with full_precision(loss):
            (head,) = torch.autograd.grad(loss, [self.head], create_graph=create_graph)
        return loss.detach(), (*(torch.zeros_like(weight) for weight in self.weights.values()), head)

    def moved(self, changes: Sequence[Tensor], *, scale: float) -> "TaskNetwork":
        """A network with `scale` times `changes` added to what is adapted; gradients flow through the sum."""
        sums = torch._foreach_add(self.adapted, list(changes), alpha=scale)
        *weights, head = map(in_layout_of, self.adapted, sums)
        return replace(self, weights=dict(zip(self.weights, weights, strict=True)), head=head, at_start=False)

    def cut(self) -> "TaskNetwork":
        """A network of these values with no history, ready for the next gradients."""
        return replace(
            self,
            weights={name: weight.detach().requires_grad_() for name, weight in self.weights.items()},
            head=self.head.detach().requires_grad_(),
        )


def in_layout_of(start: Tensor, end: Tensor) -> Tensor:
    """`end` with the strides of `start`.

    The first layer's weights of one input channel lie in memory alike in either format, and a sum forgets that they
    were channels_last: the network would run its first layer in the slower format from the second step on.
    """
    return end if end.stride() == start.stride() else torch.empty_like(start).copy_(end)


def places_of(module: nn.Module) -> Places:
    """Where `module` and its parts keep each parameter and buffer: in more than one place where layers share it."""
    places: Places = {}
    names: dict[int, str] = {}
    for prefix, part in module.named_modules():
        for held in (part._parameters, part._buffers):
            for leaf, tensor in held.items():
                if tensor is not None:
                    name = names.setdefault(id(tensor), f"{prefix}.{leaf}".lstrip("."))
                    places.setdefault(name, []).append((held, leaf))
    return places


@contextmanager
def standing_in(tensors: Mapping[str, Tensor], places: Places) -> Iterator[None]:
    """Puts `tensors` where a module keeps its own of these names, for a while.

    So does `torch.func.functional_call`, which looks for all places anew at each call: a twentieth of an inner step.
    """
    own = [(held, leaf, held[leaf], tensor) for name, tensor in tensors.items() for held, leaf in places[name]]
    try:
        for held, leaf, _, tensor in own:
            held[leaf] = tensor
        yield
    finally:
        for held, leaf, before, _ in own:
            held[leaf] = before


Adapt = Callable[[TaskNetwork, Tensor, Tensor], TaskNetwork]


def classify_adapted(
    backbone: nn.Module, episode: Episode, adapt: Adapt, *, reach: float, bn_mode: str, at_once: bool
) -> Tensor:
    """(E, Q, N) logits of networks that `adapt` has fitted to the support, task by task, or some `at_once`.

    `reach` is the rate of its steps times their number: as far as the head can come for each unit of the features.

    In each step batch norm normalises the support by itself, as in ordinary training. What differs is the queries.
    "running": by a copy of the running statistics, which the steps have moved from those of training towards the
    support's. "support": by the support as the fitted network sees it. "transductive": by themselves as a whole.
    Frozen batch norm keeps to its running statistics throughout, as in training.

    Steps that kept to the statistics of training would leave weights and statistics at odds. On Omniglot, 5-way 5-shot,
    accuracy fell from 92 % to 31 % that way.
    """

    def answer(backbone: nn.Module, e: int) -> Tensor:
        with torch.enable_grad(), batch_statistics(backbone):
            start = TaskNetwork.copy_of(backbone, episode.n_way, images=episode.support)
            task = adapt(start, episode.support[e], episode.support_labels[e])
        with torch.no_grad():
            return _answer(task, episode.support[e], episode.query[e], reach=reach, bn_mode=bn_mode)

    with evaluating(backbone):
        pass_size = max(episode.support[0].numel(), episode.query[0].numel())
        answers = of_each_task(
            answer, len(episode.support), backbone, episode.support, pass_size=pass_size, at_once=at_once
        )
        return torch.stack(answers)


def _answer(task: TaskNetwork, support: Tensor, query: Tensor, *, reach: float, bn_mode: str) -> Tensor:
    """(Q, N)."""
    features = _query_features(task, support, query, bn_mode)  # (Q, D)
    with full_precision(features):
        largest = reach * features.to(task.head.dtype).square().sum(dim=-1, keepdim=True)  # the support's are alike
        unit = TIE * torch.where(largest > 0, largest, 1).clamp(max=1)  # (Q, 1)
        return round_logits(task.logits_of(features), unit)


def _query_features(task: TaskNetwork, support: Tensor, query: Tensor, bn_mode: str) -> Tensor:
    """(Q, D)."""
    if bn_mode == "running":
        return task.features(query)
    task = replace(task, buffers={})  # the statistics are set on the backbone itself
    if bn_mode == "support":
        with normalised_by(task.backbone, lambda: task.features(support)):
            return task.features(query)
    with normalised_by(task.backbone, lambda: task.features(query)) as features:
        return features


def add_to_gradients(parameters: Iterable[Tensor], changes: Iterable[Tensor]) -> None:
    for parameter, change in zip(parameters, changes, strict=True):
        parameter.grad = change if parameter.grad is None else parameter.grad + change


def absorb_statistics(backbone: nn.Module, copies: Sequence[dict[str, Tensor]]) -> None:
    """Sets the backbone's buffers to the mean of those that its `copies` ended a task with.

    Each began with the backbone's and has moved them by the momentum of its layers.
    """
    for name, buffer in backbone.named_buffers():
        ended = torch.stack([copy[name] for copy in copies])
        if buffer.is_floating_point():
            buffer.add_((ended - buffer).mean(dim=0))  # to the bit as it was where no copy has moved
        else:
            buffer.copy_(ended.amax(dim=0))  # a count


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norm alone in training mode for a while; where it is frozen, it stays in the mode that it has."""
    layers = learning_norms(module)
    modes = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.training = True
        yield
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.training = mode


def check_inner_loop(*, inner_lr: float, **counts: int) -> None:
    """Raises `UserError` for a rate of 0 or less, and for a count (of steps, of images) below 1."""
    for key, value in {"inner_lr": inner_lr, **counts}.items():
        if value <= 0:
            wanted = "a rate above 0" if key == "inner_lr" else "a whole number of 1 or more"
            raise UserError(f"{key}={value}: give {wanted}")
