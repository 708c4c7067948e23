"""Protocols: the same tasks, however they are divided up."""

import pytest
import torch

from fewshot_runner.data.source import Run
from fewshot_runner.engine.protocols.episodes import EpisodeProtocol, Runs

FIELDS = ("support", "support_labels", "query", "query_labels")


def protocols(world) -> list[EpisodeProtocol]:
    runs = [Run((k, k + 8), (0, 1), (k + 1, k + 9, k + 2, k + 10), (0, 1, 0, 1)) for k in range(5)]
    return [world.protocol("test", episodes=5), Runs(runs, world.viewer, name="five_runs")]


def test_trap_14_a_task_does_not_depend_on_the_chunk_it_is_drawn_in(world) -> None:
    for protocol in protocols(world):
        assert len(protocol) == 5
        whole = protocol.draw(0, 5)
        torch.manual_seed(99)
        pieces = [protocol.draw(4, 5), protocol.draw(0, 1), protocol.draw(1, 4)]
        for field in FIELDS:
            last, first, middle = (getattr(piece, field) for piece in pieces)
            assert torch.equal(torch.cat([first, middle, last]), getattr(whole, field))


def test_validation_and_test_differ_in_classes_and_in_draws(world) -> None:
    validation, test = world.protocol("val"), world.protocol("test")
    first, second = validation.draw(0, 20), test.draw(0, 20)
    assert set(first.support.flatten().tolist()) <= set(world.table("val").members.tolist())
    assert set(second.support.flatten().tolist()) <= set(world.table("test").members.tolist())
    assert not torch.equal(first.support - first.support.min(), second.support - second.support.min())


def test_runs_say_what_they_are(world) -> None:
    described = protocols(world)[1].describe()
    assert described == {
        "protocol": "runs", "part": "five_runs", "n_way": 2, "n_shot": 1, "n_query": 2, "within_group": True,
        "episodes": 5, "episode_seed": None, "mode": "inductive", "bn_mode": "running",
    }  # fmt: skip


@pytest.mark.parametrize("n_way", [2, "all"])
def test_n_way_all_takes_every_class(world, n_way: int | str) -> None:
    protocol = world.protocol("test", n_way=n_way, episodes=2)
    expected = 6 if n_way == "all" else 2
    assert protocol.draw(0, 1).n_way == protocol.describe()["n_way"] == expected
