"""What a run says of itself before it begins, and which checkpoints it takes."""

from dataclasses import replace

import pytest

from fewshot_runner.data.provenance import Provenance


@pytest.mark.parametrize("remarks", [[], ["7 images are copies"], ["one thing", "another"]])
def test_remarks_on_the_data_stand_between_the_data_and_the_method(make_experiment, remarks) -> None:
    lines = make_experiment(remarks=remarks).describe().splitlines()
    assert lines[0].startswith("patterns, split halves")
    assert lines[1:-1] == remarks
    assert lines[-1].startswith("Prototypical, ")


def test_a_state_of_other_data_is_refused(make_experiment) -> None:
    state = make_experiment().state_dict()
    other = make_experiment(provenance=Provenance("patterns", "halves", "f" * 16, "fedcba9876543210"))
    with pytest.raises(ValueError, match="split_hash was 0123456789abcdef, is ffffffffffffffff"):
        other.load_state_dict(state)


def test_a_state_of_other_images_is_refused_and_one_that_does_not_say_is_not(make_experiment) -> None:
    old = make_experiment()
    first, second = (replace(old.provenance, files_hash=letter * 16) for letter in "ab")
    state = make_experiment(provenance=first).state_dict()
    make_experiment(provenance=first).load_state_dict(state)
    make_experiment(provenance=first).load_state_dict(old.state_dict())
    with pytest.raises(ValueError, match=f"files_hash was {'a' * 16}, is {'b' * 16}.*put the former data back"):
        make_experiment(provenance=second).load_state_dict(state)
