"""Tasks at the same time against the same tasks in turn.

Shapes: E episodes, N ways, S support images, Q queries.
"""

import copy
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from fewshot_runner.data.batch import Episode
from fewshot_runner.engine.device import Hardware
from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.methods import adaptation, maml, reptile, side_by_side
from fewshot_runner.methods.base import Method
from fewshot_runner.methods.maml import Maml
from fewshot_runner.methods.reptile import Reptile
from fewshot_runner.methods.side_by_side import of_each_task
from fewshot_runner.models.conv4_strided import Conv4Strided

E, N = 5, 3
FACTS = Facts(image_shape=(1, 8, 8), n_classes=9, n_way=N)
PRECISIONS = [(torch.double, 1e-10), (torch.float, 1e-4)]
METHODS: dict[str, Callable[[nn.Module], Method]] = {
    "first order": partial(Maml, order=1, inner_steps=3, test_steps=3),
    "second order": partial(Maml, order=2, inner_steps=3, test_steps=3),
    "reptile": partial(
        Reptile, inner_optimizer="sgd", inner_lr=0.1, inner_batch=5, inner_steps=3, inner_loss="sum", test_steps=3
    ),
    "reptile with adam": partial(
        Reptile, inner_optimizer="adam", inner_lr=1e-3, inner_batch=5, inner_steps=3, test_steps=3
    ),
}


@pytest.fixture(autouse=True)
def n_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tasks each call did at the same time."""
    counts = []
    real = side_by_side._at_once
    monkeypatch.setattr(side_by_side, "_at_once", lambda *words: counts.append(words[1]) or real(*words))
    return counts


def backbone(dropout: float = 0.0, *, dtype: torch.dtype = torch.double) -> nn.Module:
    torch.manual_seed(0)
    network = Conv4Strided(FACTS, widths=(4, 6)).to(dtype)
    if dropout:
        network.blocks.append(nn.Dropout(dropout))
    return network


def episode(*, dtype: torch.dtype = torch.double) -> Episode:
    random = torch.Generator().manual_seed(2)
    labels = torch.arange(N).repeat_interleave(2).repeat(E, 1)  # (E, S)
    images = [torch.rand(E, count, 1, 8, 8, generator=random, dtype=torch.double) for count in (6, 9)]
    shown = Episode(images[0], labels, images[1], torch.randint(N, (E, 9), generator=random), N)
    return shown.map(lambda pixels: pixels.to(dtype))


def learned(method: Method, *, dtype: torch.dtype = torch.double) -> dict[str, Tensor]:
    """What a meta-batch leaves: its figures, gradients, buffers and the state of the random numbers."""
    method.train()
    torch.manual_seed(3)
    figures = method.backward(episode(dtype=dtype))
    gradients = {f"gradient of {name}": each.grad for name, each in method.named_parameters() if each.grad is not None}
    buffers = {name: each.clone() for name, each in method.named_buffers()}
    return {**figures, **gradients, **buffers, "random": torch.get_rng_state()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("name", METHODS)
def test_a_meta_batch_is_learned_as_in_turn(
    name: str, dtype: torch.dtype, tolerance: float, n_threads: Callable, at_once: list[int]
) -> None:
    found = learned(METHODS[name](backbone(dtype=dtype)), dtype=dtype)
    assert at_once == ([] if name == "reptile with adam" else [E]), "moments go on from task to task"
    n_threads(1)
    same(found, learned(METHODS[name](backbone(dtype=dtype)), dtype=dtype), tolerance)
    assert len(at_once) < 2
    assert any(key.startswith("gradient of") for key in found)


@pytest.mark.parametrize("bn_mode", ["running", "support", "transductive"])
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("name", METHODS)
def test_tasks_are_answered_as_in_turn(
    name: str, dtype: torch.dtype, tolerance: float, bn_mode: str, n_threads: Callable, at_once: list[int]
) -> None:
    method, shown = METHODS[name](backbone(dtype=dtype)), episode(dtype=dtype)
    method.bn_mode = bn_mode
    before, modes = copy.deepcopy(method.state_dict()), [part.training for part in method.modules()]
    answers = method.classify(shown)
    assert at_once == [E]
    assert modes == [part.training for part in method.modules()]
    same(method.state_dict(), before, 0)
    n_threads(1)
    torch.testing.assert_close(answers, method.classify(shown), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", METHODS)
def test_a_setting_turns_tasks_at_once_off(name: str, at_once: list[int]) -> None:
    method = METHODS[name](backbone())
    found, answers = learned(method), method.classify(episode())
    del at_once[:]
    in_turn = Hardware(device="cpu", threads=2, tasks_side_by_side=False).place(METHODS[name](backbone()))
    same(learned(in_turn), found, 1e-10)
    torch.testing.assert_close(in_turn.classify(episode()), answers, rtol=1e-10, atol=1e-10)
    assert at_once == []


def test_the_loss_of_tasks_at_once_has_their_gradient(n_threads: Callable, at_once: list[int]) -> None:
    method = METHODS["second order"](backbone()).train()
    method.loss(episode()).backward()
    found = {name: each.grad for name, each in method.named_parameters()}
    n_threads(1)
    method = METHODS["second order"](backbone()).train()
    method.backward(episode())
    same(found, {name: each.grad for name, each in method.named_parameters()}, 1e-10)
    assert at_once == [E]


@pytest.mark.parametrize("threads", [1, 2])
def test_without_gradients_there_is_no_step_to_take(n_threads: Callable, at_once: list[int], threads: int) -> None:
    n_threads(threads)
    with torch.no_grad(), pytest.raises(RuntimeError, match="does not require grad"):
        METHODS["second order"](backbone()).loss(episode())
    assert at_once == ([E] if threads > 1 else [])


@pytest.mark.parametrize("name", ["first order", "reptile"])
def test_the_same_bits_come_every_time(name: str, at_once: list[int]) -> None:
    runs = [learned(METHODS[name](backbone())) for _ in range(5)]
    assert len(at_once) == 5
    for run in runs[1:]:
        same(run, runs[0], 0)


@pytest.mark.parametrize("name", ["first order", "second order"])
def test_dropout_takes_its_numbers_in_the_order_of_tasks(name: str, n_threads: Callable, at_once: list[int]) -> None:
    """The first call sees that random numbers were drawn, and does all tasks again; later ones know it."""
    method = METHODS[name](backbone(dropout=0.5))
    found = learned(method)
    method.zero_grad()
    again = learned(method)
    assert at_once == [E]
    n_threads(1)
    alone = METHODS[name](backbone(dropout=0.5))
    same(found, learned(alone), 1e-10)
    alone.zero_grad()
    same(again, learned(alone), 1e-10)


def test_what_is_in_force_around_the_tasks_is_so_for_each(n_threads: Callable) -> None:
    images = torch.zeros(4, 1, 2, 2)
    both_are_here = threading.Barrier(2, timeout=60)

    def look(module: nn.Module, e: int) -> tuple:
        a = torch.ones(2, 2)
        return e, torch.get_num_threads(), (a @ a).dtype, torch.is_grad_enabled(), module.training

    def look_together(module: nn.Module, e: int) -> tuple:
        both_are_here.wait()
        return *look(module, e), threading.get_ident()

    module = nn.Linear(2, 2).eval()
    n_threads(5)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        seen = of_each_task(look_together, 2, module, images, pass_size=1, at_once=True)
    assert [row[:-1] for row in seen] == [(e, 2, torch.bfloat16, False, False) for e in range(2)]
    assert len({row[-1] for row in seen}) == 2
    assert threading.get_ident() in {row[-1] for row in seen}
    seen = of_each_task(look, 9, module, images, pass_size=1, at_once=True)
    assert seen == [(e, 1, torch.float32, True, False) for e in range(9)]
    assert torch.get_num_threads() == 5
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [5]


def test_a_twin_shares_parameters_and_nothing_else() -> None:
    module, seen = nn.BatchNorm1d(3), []
    both_are_here = threading.Barrier(2, timeout=60)

    def change(part: nn.Module, e: int) -> None:
        both_are_here.wait()
        if part is not module:
            part.eval()
            part.running_mean.fill_(7)
        seen.append(part)

    of_each_task(change, 2, module, torch.zeros(1), pass_size=1, at_once=True)
    assert module.training
    assert torch.equal(module.running_mean, torch.zeros(3))
    (twin,) = (part for part in seen if part is not module)
    assert twin.weight is module.weight


def test_threads_that_wait_for_the_next_operation_are_ended() -> None:
    threads, libraries = Path("/proc/self/task"), Path("/proc/self/maps")
    if not threads.exists() or "libgomp" not in libraries.read_text():
        pytest.skip("only Linux lists a process's threads here, and GNU's OpenMP alone ends them")
    torch.zeros(10**6).add_(1)
    before = set(threads.iterdir())
    side_by_side._end_idle_threads()
    torch.zeros(10**6).add_(1)
    assert not set(threads.iterdir()) >= before, "one of them is a new thread"


def test_what_goes_wrong_in_a_task_is_said_as_it_would_be_in_turn() -> None:
    def fail(module: nn.Module, e: int) -> None:
        if e == 3:
            raise UserError(f"task {e}")

    with pytest.raises(UserError, match="task 3"):
        of_each_task(fail, 6, nn.Linear(1, 1), torch.zeros(1), pass_size=1, at_once=True)
    assert torch.get_num_threads() == 2


def test_nobody_begins_a_task_after_another_has_failed() -> None:
    begun = []
    both_are_here = threading.Barrier(2, timeout=60)

    def fail(module: nn.Module, e: int) -> None:
        begun.append(e)
        if e < 2:
            both_are_here.wait()
        if e == 0:
            raise KeyboardInterrupt
        time.sleep(0.2)  # by then the other has failed

    with pytest.raises(KeyboardInterrupt):
        of_each_task(fail, 50, nn.Linear(1, 1), torch.zeros(1), pass_size=1, at_once=True)
    assert len(begun) < 5


def test_a_network_that_drew_in_training_is_tested_at_once(at_once: list[int]) -> None:
    """So that its answers have the same bits in the process that trained it and in another."""
    method = METHODS["first order"](backbone(dropout=0.5))
    learned(method)
    del at_once[:]
    method.classify(episode())
    assert at_once == [E]


def test_a_compiled_network_is_not_copied(at_once: list[int]) -> None:
    module = nn.Linear(1, 1)
    module.compile(backend="eager")
    assert (
        of_each_task(lambda each, e: each is module, 3, module, torch.zeros(1), pass_size=1, at_once=True) == [True] * 3
    )
    assert at_once == []


def test_tasks_on_a_gpu_are_done_in_turn(at_once: list[int]) -> None:
    on_a_gpu = SimpleNamespace(device=torch.device("cuda"))
    assert of_each_task(lambda _, e: e, 3, nn.Linear(1, 1), on_a_gpu, pass_size=1, at_once=True) == [0, 1, 2]
    assert at_once == []


@pytest.mark.parametrize(("pass_size", "expected"), [(side_by_side.SMALL, [3]), (side_by_side.SMALL + 1, [])])
def test_tasks_of_large_passes_are_done_in_turn(pass_size: int, expected: list[int], at_once: list[int]) -> None:
    images = torch.zeros(3, 1)
    found = of_each_task(lambda _, e: e, 3, nn.Linear(1, 1), images, pass_size=pass_size, at_once=True)
    assert found == [0, 1, 2]
    assert at_once == expected


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("first order", [9 * 64, 9 * 64]), ("reptile", [5 * 64, 9 * 64])],  # of (6 + 9) images of 8 x 8
)
def test_the_largest_pass_of_a_task_is_told(name: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """In training MAML's queries or Reptile's inner batch; in answering the queries."""
    told = []

    def spy(*words: object, pass_size: int, **options: object) -> list:
        told.append(pass_size)
        return of_each_task(*words, pass_size=pass_size, **options)

    for module in (adaptation, maml, reptile):
        monkeypatch.setattr(module, "of_each_task", spy)
    method = METHODS[name](backbone())
    learned(method)
    method.classify(episode())
    assert told == sizes
