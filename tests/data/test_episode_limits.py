"""Which episodes a table can fill, and what is said of those that it cannot."""

import pytest
from class_tables import TABLE, make_table

from fewshot_runner.data.episode_limits import check_episode
from fewshot_runner.data.samplers import EpisodeSampler
from fewshot_runner.errors import UserError

NAMED = {"key": "episode.", "part": "the val part of here"}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"n_way": 15}, "KEY.n_way=15: PART has only 14 classes; lower KEY.n_way to 14 or less$"),
        ({"n_way": 8, "within_group": True}, "KEY.n_way=8: the largest group has only 7 classes; lower KEY.n_way to 7"),
        ({"n_way": 1}, "KEY.n_way=1: an episode needs at least 2 classes"),
        ({"n_way": 0}, "KEY.n_way=0: give a whole number of 1 or more or all"),
        ({"n_way": "some"}, "KEY.n_way=some: give a whole number of 1 or more or all"),
        ({"n_way": "all", "within_group": True}, "KEY.n_way=all and KEY.within_group=true exclude each other"),
        ({"n_shot": 0}, "KEY.n_shot=0: give a whole number of 1 or more$"),
        ({"n_shot": "all"}, "KEY.n_shot=all: give a whole number of 1 or more; all is for the protocol closed_set$"),
        ({"n_query": -1}, "KEY.n_query=-1: give a whole number of 1 or more$"),
        ({"n_shot": 5, "n_query": 4}, "KEY.n_shot=5, KEY.n_query=4: the class 'b/1' has only 8 images where 9 are "
         "needed; lower KEY.n_shot or KEY.n_query, or add"),
    ],
)  # fmt: skip
def test_an_impossible_episode_is_refused_with_its_keys_and_its_remedy(shape, message):
    """A test's by the keys of the test, and a sampler's by those of the sampler, which training alone makes unasked."""
    table = make_table({"a": [9] * 5, "b": [11, 8, 10, 9, 12, 9, 9], "c": [9, 9]})
    asked = {"n_way": 5, "n_shot": 1, "n_query": 2, "within_group": False, **shape}
    of_test = message.replace("KEY", "dataset.tests.x").replace("PART", "the val part of here")
    with pytest.raises(UserError, match=f"^{of_test}"):
        check_episode(table, **asked, key="dataset.tests.x.", part="the val part of here")
    of_training = message.replace("KEY", "method.sampler").replace("PART", "the training part")
    with pytest.raises(UserError, match=f"^{of_training}"):
        EpisodeSampler(table, **asked, seed=0)


def test_groups_of_data_that_have_none_are_refused():
    """Classes of one unnamed group would be drawn across all of them, and the figure called otherwise."""
    without = make_table({"": [9] * 5})
    asked = {"n_way": 3, "n_shot": 1, "n_query": 2}
    with pytest.raises(UserError, match=r"^episode\.within_group=true: the val part of here has no groups"):
        check_episode(without, **asked, within_group=True, **NAMED)
    with pytest.raises(UserError, match=r"^method\.sampler\.within_group=true: the training part has no groups"):
        EpisodeSampler(without, **asked, within_group=True, seed=0)
    assert check_episode(without, **asked, within_group=False, **NAMED) == 3


def test_the_largest_possible_episode_is_accepted():
    assert check_episode(TABLE, n_way=14, n_shot=4, n_query=5, within_group=False, **NAMED) == 14
    assert check_episode(TABLE, n_way="all", n_shot=8, n_query=1, within_group=False, **NAMED) == 14
    assert check_episode(TABLE, n_way=7, n_shot=8, n_query=1, within_group=True, **NAMED) == 7


@pytest.mark.parametrize(
    ("n_way", "within_group"), [(5, False), (2, False), (1, False), ("all", False), (5, True), (2, True)]
)
def test_where_no_number_of_ways_would_do_none_is_advised(n_way, within_group):
    one_class = make_table({"Greek": [6]})
    with pytest.raises(UserError) as refusal:
        check_episode(one_class, n_way=n_way, n_shot=1, n_query=1, within_group=within_group, **NAMED)
    said = str(refusal.value)
    where = "the largest group" if within_group else NAMED["part"]
    assert said.startswith(f"episode.n_way={n_way}: {where} has only 1 class, and an episode needs at least 2")
    assert "fsl predict" in said
    assert "lower" not in said


def test_groups_of_one_class_each_are_no_groups_to_draw_from():
    with pytest.raises(UserError, match=r"the largest group has only 1 class.*set episode\.within_group=false"):
        check_episode(
            make_table({"Greek": [6], "Latin": [6]}), n_way=2, n_shot=1, n_query=1, within_group=True, **NAMED
        )
