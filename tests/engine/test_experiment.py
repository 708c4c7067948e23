"""What a run says of itself before it begins."""

import pytest


@pytest.mark.parametrize("remarks", [[], ["7 images are copies"], ["one thing", "another"]])
def test_remarks_on_the_data_stand_between_the_data_and_the_method(make_experiment, remarks) -> None:
    lines = make_experiment(remarks=remarks).describe().splitlines()
    assert lines[0].startswith("patterns, split halves")
    assert lines[1:-1] == remarks
    assert lines[-1].startswith("Prototypical, ")
