"""Reptile and first-order MAML, a meta-batch at a time: against a loop over the tasks with a deep copy for each."""

from collections.abc import Callable, Iterator

import torch

from benchmarks import networks, own
from benchmarks.apart import apart
from benchmarks.measuring import Bench, Contestant, Figure, race, speedup
from benchmarks.rivals import deep_copies
from fewshot_runner.methods.maml import Maml
from fewshot_runner.methods.reptile import Reptile, in_turn

ROUNDS, META_BATCHES = 9, 2
IN_TURN = f"fsl, {own.OF_TASKS} off"


def figures(bench: Bench) -> Iterator[Figure]:
    for name, title in (("reptile", "Reptile"), ("maml", "first-order MAML")):
        task = {"name": name, "threads": bench.threads}
        makers = {
            "fsl": (fsl, {**task, "overrides": []}),
            "deep copies": (copies, task),
            IN_TURN: (fsl, {**task, "overrides": [f"hardware.{own.OF_TASKS}=false"]}),
        }
        with apart(makers, threads=bench.threads) as runs:
            contestants = {contestant: Contestant(run, META_BATCHES) for contestant, run in runs.items()}
            samples = race(contestants, rounds=bench.rounds(ROUNDS))
        figure = f"{title}: time a meta-batch"
        yield speedup(figure, samples, against="deep copies", target=1.5)
        yield speedup(figure, samples, against=IN_TURN)


def fsl(name: str, threads: int, overrides: list[str]) -> Callable[[int], None]:
    ours = own.experiment(f"method={name}", *own.PLAIN, *overrides, threads=threads)
    method, batch = ours.method.train(), ours.items[0]

    def run(units: int) -> None:
        for _ in range(units):
            method.backward(batch)

    return run


def copies(name: str, threads: int) -> Callable[[int], None]:
    ours = own.experiment(f"method={name}", *own.PLAIN, *own.NO_FAST_PATHS, threads=threads)
    method, batch = ours.method.train(), ours.items[0]
    plain = networks.with_weights_of(networks.conv4_strided(), method.backbone)
    rival = {"reptile": reptile_by_copies, "maml": maml_by_copies}[name]

    def run(units: int) -> None:
        for _ in range(units):
            rival(method, plain, batch)

    return run


def reptile_by_copies(method: Reptile, plain: torch.nn.Module, batch) -> None:
    labels = torch.cat([batch.support_labels, batch.query_labels], dim=1)
    order = in_turn(labels, batch.n_way)
    turns = -(-method.inner_steps * method.inner_batch // order.shape[1])
    deep_copies.reptile(
        plain, batch, order.repeat(1, turns), features=method.backbone.out_features, inner_lr=method.inner_lr,
        inner_steps=method.inner_steps, inner_batch=method.inner_batch,
    )  # fmt: skip


def maml_by_copies(method: Maml, plain: torch.nn.Module, batch) -> None:
    deep_copies.maml(
        plain, batch, features=method.backbone.out_features, inner_lr=method.inner_lr, inner_steps=method.inner_steps
    )
