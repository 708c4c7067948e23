"""Early stopping, and signals that a run honours between two steps."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from fewshot_runner.engine.stopping import EarlyStopping, Stopped, StopRequest
from fewshot_runner.errors import UserError


def feed(stopping: EarlyStopping, values: list[float]) -> list[bool]:
    return [stopping.improves({stopping.monitor: value}, step) for step, value in enumerate(values, start=1)]


def test_accuracy_is_better_when_higher() -> None:
    stopping = EarlyStopping(patience=2, monitor="accuracy")
    assert feed(stopping, [0.5, 0.4, 0.6, 0.6]) == [True, False, True, False]
    assert (stopping.best, stopping.best_step, stopping.waited) == (0.6, 3, 1)
    assert not stopping.exhausted
    assert not stopping.improves({"accuracy": 0.1}, 5)
    assert stopping.exhausted


@pytest.mark.parametrize("monitor", ["loss", "val_loss"])
def test_losses_are_better_when_lower(monitor: str) -> None:
    stopping = EarlyStopping(patience=2, monitor=monitor)
    assert feed(stopping, [0.5, 0.6, 0.4, 0.4, 0.45]) == [True, False, True, False, False]
    assert (stopping.best, stopping.best_step) == (0.4, 3)
    assert stopping.exhausted


def test_without_patience_it_never_stops() -> None:
    stopping = EarlyStopping(patience=None, monitor="accuracy")
    feed(stopping, [0.5] + [0.1] * 1000)
    assert not stopping.exhausted


def test_a_figure_that_is_not_a_number_is_no_improvement() -> None:
    stopping = EarlyStopping(patience=2, monitor="loss")
    assert feed(stopping, [0.5, float("nan")]) == [True, False]


def test_trap_16_it_goes_on_from_its_state() -> None:
    values = [0.3, 0.5, 0.4, 0.45, 0.2]
    whole = EarlyStopping(patience=3, monitor="accuracy")
    feed(whole, values)
    first, second = (EarlyStopping(patience=3, monitor="accuracy") for _ in range(2))
    feed(first, values[:3])
    second.load_state_dict(first.state_dict())
    for step, value in enumerate(values[3:], start=4):
        second.improves({"accuracy": value}, step)
    assert second.state_dict() == whole.state_dict() == {"best": 0.5, "best_step": 2, "waited": 3}
    assert second.exhausted


def test_mistakes_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"trainer\.patience=0"):
        EarlyStopping(patience=0, monitor="accuracy")
    with pytest.raises(UserError, match=r"trainer\.monitor=acuracy.*accuracy, loss"):
        EarlyStopping(patience=1, monitor="acuracy").improves({"accuracy": 1.0, "loss": 0.0}, 1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_becomes_a_request(number: signal.Signals, code: int) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    with StopRequest() as stop:
        assert not stop.requested
        stop.check()
        signal.raise_signal(number)
        assert stop.requested
        with pytest.raises(Stopped, match=number.name) as stopped:
            stop.check()
        assert stopped.value.exit_code == code
    assert {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)} == before


def test_a_second_signal_takes_effect_at_once() -> None:
    with StopRequest():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_handlers_come_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), StopRequest():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) == before


def test_in_another_thread_no_handler_is_set_and_nothing_fails() -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

    def work() -> dict:
        with StopRequest() as stop:
            stop.check()
            return {each: signal.getsignal(each) for each in before}

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(work).result() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_came_too_late_is_handed_on_to_who_wants_it(number: signal.Signals) -> None:
    came: list[int] = []
    before = signal.signal(number, lambda *each: came.append(each[0]))
    try:
        with StopRequest():
            signal.raise_signal(number)
            assert came == []
        assert came == [number]
        with pytest.raises(Stopped):  # honoured: nobody else needs to know
            honour(number)
        assert came == [number]
    finally:
        signal.signal(number, before)


def honour(number: signal.Signals) -> None:
    with StopRequest() as stop:
        signal.raise_signal(number)
        stop.check()


def test_a_run_that_is_done_is_not_interrupted_by_what_came_too_late() -> None:
    with StopRequest():
        signal.raise_signal(signal.SIGINT)
