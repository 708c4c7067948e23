"""Random numbers as pure functions, against a second Philox."""

import hashlib
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from slow_draws import slow_uniforms

from fewshot_runner.randomness import numpy_generator, torch_generator, torch_seed, uniforms


@pytest.mark.parametrize(("seed", "stream"), [(0, "train"), (7, "val"), (-3, "ä/b"), (2**70, "")])
def test_uniforms_equal_a_second_philox(seed, stream):
    rows = uniforms(seed, stream, range(3, 9), 11)
    assert rows.tolist() == [slow_uniforms(seed, stream, position, 11) for position in range(3, 9)]


def test_rows_do_not_depend_on_their_neighbours():
    whole = uniforms(1, "train", range(100), 5)
    assert np.array_equal(whole[40:60], uniforms(1, "train", range(40, 60), 5))
    assert np.array_equal(whole[:, :2], uniforms(1, "train", range(100), 2))
    assert uniforms(1, "train", range(5, 5), 3).shape == (0, 3)


def test_a_generator_and_uniforms_agree():
    assert numpy_generator(4, "test", 12).random(6).tolist() == uniforms(4, "test", range(12, 13), 6)[0].tolist()


@pytest.mark.parametrize("other", [(1, "train", 0), (0, "val", 0), (0, "train", 1)])
def test_seed_stream_and_position_each_matter(other):
    assert not np.array_equal(numpy_generator(0, "train", 0).random(4), numpy_generator(*other).random(4))
    assert torch_seed(0, "train", 0) != torch_seed(*other)
    assert not torch.equal(
        torch.rand(4, generator=torch_generator(0, "train", 0)), torch.rand(4, generator=torch_generator(*other))
    )


def test_numbers_are_uniform_along_a_row_and_down_a_column():
    rows = uniforms(5, "train", range(4000), 5)
    assert stats.kstest(rows.ravel(), "uniform").pvalue > 1e-4
    for column in rows.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
        assert abs(np.corrcoef(column[1:], column[:-1])[0, 1]) < 4 / np.sqrt(len(column))


def test_a_torch_seed_is_63_bits_of_a_digest():
    digest = hashlib.sha256(b"3/augment/17").digest()
    assert torch_seed(3, "augment", 17) == struct.unpack("<Q", digest[:8])[0] // 2
    seeds = [torch_seed(3, "augment", position) for position in range(5000)]
    assert len(set(seeds)) == 5000
    assert 0 <= min(seeds) < max(seeds) < 2**63
    assert max(seeds) > 2**62


def test_a_torch_generator_starts_from_its_seed():
    generator = torch_generator(3, "augment", 17)
    assert generator.device.type == "cpu"
    assert generator.initial_seed() == torch_seed(3, "augment", 17)
    again = torch.Generator().manual_seed(torch_seed(3, "augment", 17))
    assert torch.equal(torch.rand(8, generator=generator), torch.rand(8, generator=again))


def test_global_generators_are_left_alone():
    np_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    uniforms(0, "train", range(3), 3)
    numpy_generator(0, "train").random()
    torch.rand(3, generator=torch_generator(0, "train"))
    assert np.array_equal(np_state, np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(torch_state, torch.get_rng_state())


def test_another_process_draws_the_same_numbers():
    program = (
        "from fewshot_runner.randomness import *\n"
        "print(uniforms(9, 'train', range(4, 6), 3).tolist(), torch_seed(9, 'augment', 4))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert answer == f"{uniforms(9, 'train', range(4, 6), 3).tolist()} {torch_seed(9, 'augment', 4)}\n"
