"""The evaluator: one for every method and protocol, and it changes nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

from fewshot_runner.engine.answers import Between, go_on
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.protocols.base import Evaluation, Protocol
from fewshot_runner.methods.base import Method


def evaluate(method: Method, protocol: Protocol, *, hardware: Hardware, between: Between = go_on) -> Evaluation:
    """The figures of `method` under `protocol`; `between` is called now and then and may raise to end it early."""
    with answering(method, protocol, hardware):
        return protocol.measure(method, between)


@contextmanager
def answering(method: Method, protocol: Protocol, hardware: Hardware) -> Iterator[None]:
    """What holds while a method answers the protocol's tasks, and not before or after.

    Evaluation mode without gradients, batch norm in the protocol's mode, and the precision of the hardware.
    """
    before = method.bn_mode
    with hardware.inference(method):
        method.bn_mode = protocol.bn_mode
        try:
            yield
        finally:
            method.bn_mode = before
