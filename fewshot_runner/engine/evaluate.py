"""The evaluator: one for every method and protocol, and it changes nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fewshot_runner.engine.answers import Between, go_on
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.protocols.base import Evaluation, Protocol
from fewshot_runner.methods.base import Method, evaluating


def evaluate(method: Method, protocol: Protocol, *, hardware: Hardware, between: Between = go_on) -> Evaluation:
    """The figures of `method` under `protocol`; `between` is called now and then and may raise to end it early."""
    with torch.no_grad(), evaluating(method), normalising(method, protocol.bn_mode), hardware.autocast():
        return protocol.measure(method, between)


@contextmanager
def normalising(method: Method, bn_mode: str) -> Iterator[None]:
    """Batch norm in `bn_mode` for a while."""
    before, method.bn_mode = method.bn_mode, bn_mode
    try:
        yield
    finally:
        method.bn_mode = before
