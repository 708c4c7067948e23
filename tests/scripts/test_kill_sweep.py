"""scripts/kill_sweep, as small as it gets."""

import pytest
from processes import run_script


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["serial", "parallel"])
def test_a_sweep_that_is_killed_ends_with_the_same_bits(launcher: str) -> None:
    answer = run_script("kill_sweep", "--kills", "3", "--jobs", "2", "--launcher", launcher)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    kills, compared, differences, _ = answer.stdout.splitlines()[-1].split(", ")
    assert (kills, differences) == ("3 kills", "0 differences")
    assert int(compared.split()[0]) > 50
