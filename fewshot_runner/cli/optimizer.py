"""The optimiser that a config describes, with the options that it gives to single layers."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fewshot_runner.cli.arguments import nearest
from fewshot_runner.errors import UserError

Group = dict[str, Any]  # torch's: parameters and the options that they are trained with


def make_optimizer(
    make: Callable[..., Any], described: Mapping[str, Any], module: nn.Module, schedules: Iterable[str]
) -> Optimizer:
    """Of the parameters of `module` that are trained; `described` is the section `method` of a config.

    `make` builds what a part of the config describes. Each option of `schedules` has its initial value beside it.
    """
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    groups = _groups(make, described, named)
    optimizer = make(described["optimizer"], "method.optimizer", params=groups)
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if isinstance(optimizer, torch.optim.SparseAdam) or (closure and closure.default is closure.empty):
        raise UserError(
            f"method.optimizer._target_={described['optimizer']['_target_']}: takes other steps than one along the "
            "gradient of a batch; choose another, such as torch.optim.Adam"
        )
    for group in optimizer.param_groups:
        for option in schedules:
            if option not in group:
                key = "schedule" if option == "lr" else option
                raise UserError(
                    f"method.{key}._target_={described[key]['_target_']}: {type(optimizer).__name__} has no {option} "
                    f"to change; give method.{key}=null, or an optimiser that has it, as "
                    "method.optimizer._target_=torch.optim.SGD"
                )
            group[f"initial_{option}"] = group[option]
    return optimizer


def _groups(make: Callable[..., Any], described: Mapping[str, Any], named: Mapping[str, Tensor]) -> list[Group]:
    """A group for each key of `method.layers`, which names a part of the network, and one for the rest.

    Of several parts that a parameter belongs to the innermost counts.
    """
    groups: dict[str, Group] = {"": {"params": []}}
    for prefix, options in (described.get("layers") or {}).items():
        alone = [nn.Parameter(torch.zeros(1))]  # refuses what the optimiser would refuse for all layers
        make({**described["optimizer"], **options}, f"method.layers.{prefix}", params=alone)
        groups[prefix] = {"params": [], **options}
    for name, parameter in named.items():
        matching = [prefix for prefix in groups if not prefix or f"{name}.".startswith(f"{prefix}.")]
        groups[max(matching, key=len)]["params"].append(parameter)
    for prefix, group in groups.items():
        if prefix and not group["params"]:
            known = nearest(prefix, list(named))
            raise UserError(f"method.layers.{prefix}: no trained parameter is called so{known}")
    return [group for group in groups.values() if group["params"]]
