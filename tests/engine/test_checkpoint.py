"""Checkpoints that are whole or absent."""

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from same_bits import assert_same_bits

from fewshot_runner.engine.checkpoint import KEPT, MARK, Checkpoints, DamagedCheckpoint, load, save

STATE = {
    "method": {"weight": torch.arange(12.0).view(3, 4), "count": torch.tensor(7)},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999)}]},
    "step": 12,
    "best": None,
    "totals": {"loss": torch.tensor(0.1, dtype=torch.float64)},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "state.pt"
    save(path, STATE)
    return path


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path)


def test_what_was_saved_is_loaded(file: Path) -> None:
    assert_same_bits(load(file), STATE)


def test_torch_reads_the_file_as_it_is(file: Path) -> None:
    assert_same_bits(torch.load(file, weights_only=True), STATE)


def test_a_flipped_bit_anywhere_is_detected(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    places = sorted({*range(0, len(content), 97), *range(len(content) - 50, len(content)), 0, 1})
    assert len(places) > 50
    damaged = tmp_path / "damaged.pt"
    for number, place in enumerate(places):
        flipped = content[place] ^ (1 << number % 8)
        damaged.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
        with pytest.raises(DamagedCheckpoint, match=r"damaged\.pt"):
            load(damaged)


def test_a_cut_or_grown_file_is_detected(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    other = tmp_path / "other.pt"
    for changed in (b"", b"x", content[:40], content[: len(content) // 2], content[:-1], content + b"\0", content * 2):
        other.write_bytes(changed)
        with pytest.raises(DamagedCheckpoint):
            load(other)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedCheckpoint, match=r"absent\.pt.*No such file"):
        load(tmp_path / "absent.pt")


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


def test_a_pickle_bomb_is_not_executed(tmp_path: Path) -> None:
    """Not even with a checksum of its own that fits."""
    target, path = tmp_path / "executed", tmp_path / "bomb.pt"
    save(path, {"method": Bomb(target)})
    with pytest.raises(DamagedCheckpoint, match=r"bomb\.pt"):
        load(path)
    plain = pickle.dumps(Bomb(target), protocol=2)
    path.write_bytes(plain + MARK + hashlib.sha256(plain).digest())
    with pytest.raises(DamagedCheckpoint, match=r"bomb\.pt"):
        load(path)
    assert not target.exists()
    pickle.loads(plain)
    assert target.exists()  # the bomb was live


def test_only_the_last_steps_are_kept(checkpoints: Checkpoints) -> None:
    checkpoints.save_best(STATE)
    for step in (5, 10, 15, 100):
        checkpoints.save_step(step, {**STATE, "step": step})
    names = sorted(path.name for path in checkpoints.folder.iterdir())
    assert KEPT == 2
    assert names == ["best.pt", "step-00000015.pt", "step-00000100.pt"]
    state, damaged = checkpoints.load_step()
    assert state["step"] == 100
    assert damaged == []
    best, damaged = checkpoints.load_best()
    assert_same_bits(best, STATE)
    assert damaged == []


def test_a_damaged_newest_is_passed_over_and_said_so(checkpoints: Checkpoints) -> None:
    for step in (5, 10):
        checkpoints.save_step(step, {**STATE, "step": step})
    newest = checkpoints.folder / "step-00000010.pt"
    newest.write_bytes(newest.read_bytes()[:-1])
    state, damaged = checkpoints.load_step()
    assert state["step"] == 5
    assert len(damaged) == 1
    assert "step-00000010.pt" in damaged[0]
    (checkpoints.folder / "step-00000005.pt").write_bytes(b"")
    state, damaged = checkpoints.load_step()
    assert state is None
    assert len(damaged) == 2


def test_a_damaged_best_is_passed_over_for_the_newest_whole_state_and_said_so(checkpoints: Checkpoints) -> None:
    checkpoints.save_step(5, {**STATE, "step": 5})
    checkpoints.save_best({**STATE, "step": 3})
    checkpoints.best.write_bytes(checkpoints.best.read_bytes()[1:])
    state, damaged = checkpoints.load_best()
    assert state["step"] == 5
    assert len(damaged) == 1
    assert "best.pt" in damaged[0]


def test_an_empty_folder_has_no_state(checkpoints: Checkpoints) -> None:
    assert checkpoints.load_step() == (None, [])
    with pytest.raises(DamagedCheckpoint, match=r"best\.pt"):
        checkpoints.load_best()


# One process imports torch; its children save without end and are killed at random moments.
KILLED_WHILE_SAVING = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from fewshot_runner.engine.checkpoint import Checkpoints

torch.set_num_threads(1)
checkpoints = Checkpoints(Path(sys.argv[1]))
random.seed(0)
latest = leftovers = 0

def has_saved():
    return any(path.name > f"step-{latest:08d}.pt" for path in checkpoints.folder.glob("step-*.pt"))

for kill in range(25):
    child = os.fork()
    if not child:
        step = latest
        while True:
            step += 1
            checkpoints.save_step(step, {"weight": torch.full((40_000,), float(step)), "step": step})
            checkpoints.save_best({"weight": torch.full((40_000,), float(step)), "step": step})
    try:
        end = time.monotonic() + 60
        while not has_saved():
            assert time.monotonic() < end, "waited too long"
            time.sleep(0.002)
        time.sleep(random.random() * 0.05)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    state, damaged = checkpoints.load_step()
    assert state is not None and not damaged, damaged
    assert state["step"] >= latest and (state["weight"] == state["step"]).all()
    best, damaged = checkpoints.load_best()
    assert not damaged or not checkpoints.best.exists(), damaged
    assert best["step"] <= state["step"] and (best["weight"] == best["step"]).all()
    for half_written in checkpoints.folder.glob(".*.tmp"):
        half_written.unlink()
        leftovers += 1
    latest = state["step"]
print(latest, leftovers)
"""


def test_a_kill_inside_a_save_leaves_a_whole_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    saved, interrupted = map(int, done.stdout.split())
    assert saved >= 25
    assert interrupted > 0, "no kill hit a save, so this has shown nothing"
