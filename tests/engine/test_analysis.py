"""What a report shows beyond a summary, against slow loops over the same episodes."""

from collections import Counter

import numpy as np
import pytest
import torch

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.samplers import EpisodeSampler
from fewshot_runner.data.source import Run
from fewshot_runner.engine.analysis import HARDEST, analyse, by_part, in_a_row
from fewshot_runner.engine.protocols.closed_set import ClosedSet
from fewshot_runner.engine.protocols.episodes import Episodes, Runs
from fewshot_runner.engine.surface import surface
from fewshot_runner.intervals import interval, wilson_interval
from fewshot_runner.methods.base import Method


@pytest.fixture
def method(make_method):
    return make_method().eval()


class Oracle(Method):
    """Answers with a class of its choice: no embedding, as a method that fits every task."""

    def __init__(self, choice: int) -> None:
        super().__init__()
        self.choice = choice

    def loss(self, batch):
        raise NotImplementedError

    def classify(self, episode):
        logits = torch.zeros(*episode.query_labels.shape, episode.n_way)
        logits[..., self.choice] = 1
        return logits


def test_accuracy_by_class_and_group_is_that_of_a_loop(world, method, hardware):
    protocol = world.protocol("test", episodes=30)
    content = analyse(method, {"4way1shot": protocol}, hardware=hardware).content
    by_class, by_group = {}, {}
    for number in range(30):
        episode = protocol.draw(number, number + 1)
        answers = method.classify(episode.map(world.viewer)).argmax(-1)[0]
        earned_by_class, earned_by_group = {}, {}
        for index, label, answer in zip(episode.query[0], episode.query_labels[0], answers, strict=True):
            name = world.labels[int(index)]
            earned_by_class.setdefault(f"class{name:02d}", []).append(float(label == answer))
            earned_by_group.setdefault(f"group{name // 3}", []).append(float(label == answer))
        for earned, kept in ((earned_by_class, by_class), (earned_by_group, by_group)):
            for name, values in earned.items():
                kept.setdefault(name, []).append(np.mean(values))
    for rows, expected in ((content["classes"], by_class), (content["groups"], by_group)):
        assert {row["name"] for row in rows} == set(expected)
        assert [row["accuracy"] for row in rows] == sorted(row["accuracy"] for row in rows)
        for row in rows:
            values = np.array(expected[row["name"]])
            assert row["accuracy"] == pytest.approx(values.mean())
            assert row["count"] == len(values)
            assert row["ci95"] == pytest.approx(interval(values, unit="episodes"))
    assert {row["group"] for row in content["classes"]} == {"group6", "group7"}


def test_by_part_by_hand():
    right = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    parts = np.array([[5, 5, 2], [2, 2, 5]])
    rows = by_part(right, parts)
    assert list(rows) == [2, 5]
    assert rows[5] == {"accuracy": 0.75, "ci95": pytest.approx(12.7062 * 0.25, abs=1e-3), "count": 2}
    assert rows[2]["accuracy"] == 0.5  # of 1 and 0, an episode each
    one_query_each = by_part(np.array([[1.0], [1.0], [0.0], [0.5]]), np.zeros((4, 1), dtype=int))
    assert one_query_each[0]["ci95"] == wilson_interval(np.array([1.0, 1.0, 0.0, 0.5]))
    assert by_part(np.ones((6, 2)), np.zeros((6, 2), dtype=int))[0]["ci95"] == wilson_interval(np.ones(6)) > 0.2


def test_the_hardest_episodes_come_first_with_their_mistakes_and_pictures(world, method, hardware):
    protocol = world.protocol("test", episodes=30)
    analysis = analyse(method, {"4way1shot": protocol}, hardware=hardware)
    accuracies = []
    for number in range(30):
        episode = protocol.draw(number, number + 1)
        answers = method.classify(episode.map(world.viewer)).argmax(-1)
        accuracies.append(float((answers == episode.query_labels).float().mean()))
    hardest = analysis.content["hardest"]
    assert [each["accuracy"] for each in hardest] == pytest.approx(sorted(accuracies)[:HARDEST])
    files = set()
    for each in hardest:
        assert accuracies[each["number"]] == pytest.approx(each["accuracy"])
        episode = protocol.draw(each["number"], each["number"] + 1)
        answers = method.classify(episode.map(world.viewer)).argmax(-1)[0]
        names = [f"class{world.labels[int(index)]:02d}" for index in episode.support[0]]  # one shot: a row a class
        wrong = [
            (names[int(label)], names[int(answer)])
            for label, answer in zip(episode.query_labels[0], answers, strict=True)
            if label != answer
        ]
        told = {(mistake["truth"], mistake["answer"]): mistake["count"] for mistake in each["mistakes"]}
        assert list(told.values()) == sorted(Counter(wrong).values(), reverse=True)[:5]
        assert all(Counter(wrong)[kind] == count for kind, count in told.items())
        assert (each["wrong"], each["queries"]) == (len(wrong), 12)
        files |= {each["picture"], *(mistake["picture"] for mistake in each["mistakes"])}
    assert files == set(analysis.pictures)
    assert all(picture.dtype == np.uint8 and picture.shape[2] == 3 for picture in analysis.pictures.values())


def test_an_analysis_changes_nothing_and_is_the_same_again(world, method, hardware):
    before = {name: value.clone() for name, value in method.state_dict().items()}
    protocol = world.protocol("test", episodes=10)
    first = analyse(method, {"a": protocol}, hardware=hardware)
    second = analyse(method, {"a": protocol}, hardware=hardware)
    assert first.content == second.content
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert not method.training


def test_a_method_that_fits_every_task_has_no_surface_and_says_so(world, hardware):
    content = analyse(Oracle(0), {"a": world.protocol("test", episodes=10)}, hardware=hardware).content
    assert content["surface"] is None
    assert any("embeds" in reason for reason in content["missing"])
    assert len(content["classes"]) == 6
    assert content["episodes"] == 10


def test_fixed_runs_have_hardest_tasks_but_no_classes(world, method, hardware):
    runs = [Run((k, k + 8), (0, 1), (k + 1, k + 9), (0, 1)) for k in range(5)]
    content = analyse(method, {"r": Runs(runs, world.viewer, name="five")}, hardware=hardware).content
    assert "classes" not in content
    assert len(content["hardest"]) == 5
    assert all(
        mistake["truth"] in ("class 1", "class 2") for each in content["hardest"] for mistake in each["mistakes"]
    )
    assert len(content["missing"]) == 2


def test_images_of_the_classes_of_training_are_analysed_one_by_one(world, hardware):
    table = world.table("test")
    protocol = ClosedSet(table, table, world.viewer, n_shot="all", episodes=1, seed=0, part="test")
    analysis = analyse(Oracle(2), {"closed_set": protocol}, hardware=hardware)
    rows = {row["name"]: row for row in analysis.content["classes"]}
    assert {name: row["accuracy"] for name, row in rows.items()} == {
        name: float(label == 2) for label, name in enumerate(table.names)
    }
    assert rows["class18"]["count"] == 8
    assert 0 < rows["class18"]["ci95"] < 0.5  # Wilson's: eight mistakes of eight are no certainty
    assert all(each["answer"] == "class20" != each["truth"] for each in analysis.content["hardest"])
    assert analysis.content["unit"] == "images"


def test_heads_fitted_on_few_images_are_analysed_by_the_names_of_their_classes(world, hardware):
    """The test part lists five classes of six, so its numbers are not those of training."""
    train = world.table("test")
    chosen = np.flatnonzero((world.labels > 18) & (world.labels < 24))
    names, groups = [f"class{c:02d}" for c in range(24)], [f"group{c // 3}" for c in range(24)]
    queries = ClassTable.build(world.labels, names, groups, chosen)
    protocol = ClosedSet(train, queries, world.viewer, n_shot=2, episodes=7, seed=0, part="test")
    content = analyse(Oracle(2), {"closed_set": protocol}, hardware=hardware).content
    rows = {row["name"]: row for row in content["classes"]}
    assert {name: (row["accuracy"], row["count"]) for name, row in rows.items()} == {
        name: (float(name == "class20"), 7) for name in names[19:]
    }
    mistakes = [mistake for each in content["hardest"] for mistake in each["mistakes"]]
    assert {mistake["answer"] for mistake in mistakes} == {"class20"}
    assert {mistake["truth"] for mistake in mistakes} == {"class19", "class21", "class22", "class23"}
    assert len(content["missing"]) == 1  # ways and shots


def test_no_test_that_shows_classes_is_said(hardware, method):
    assert analyse(method, {}, hardware=hardware).content["missing"]


# Ways and shots


def test_a_surface_is_that_of_a_loop_over_the_largest_episodes(world, method):
    table = world.table("test")
    made = surface(
        method, table, world.viewer, eligible_groups=None, seed=4, between=lambda: None, ways=(2, 4, 9),
        shots=(1, 3, 9), episodes=25,
    )  # fmt: skip
    assert (made["ways"], made["shots"]) == ([2, 4], [1, 3])  # there are 6 classes of 8 images
    drawn = EpisodeSampler(table, n_way=4, n_shot=3, n_query=3, seed=4, stream="surface").draw(0, 25)
    for row, n_way in enumerate((2, 4)):
        for column, n_shot in enumerate((1, 3)):
            accuracies = []
            for number in range(25):
                shown = {label: [] for label in range(n_way)}
                for index, label in zip(drawn.support[number], drawn.support_labels[number], strict=True):
                    if int(label) < n_way and len(shown[int(label)]) < n_shot:
                        shown[int(label)].append(index)
                asked = [k for k, label in enumerate(drawn.query_labels[number]) if label < n_way]
                support = world.viewer(torch.stack([index for label in shown for index in shown[label]]))
                query = world.viewer(drawn.query[number][asked])
                labels = torch.arange(n_way).repeat_interleave(n_shot)
                with torch.no_grad():
                    scores = method.score(
                        method.embed(support)[None], labels[None], method.embed(query)[None], n_way
                    )[0]  # fmt: skip
                accuracies.append(float((scores.argmax(-1) == drawn.query_labels[number][asked]).float().mean()))
            assert made["accuracy"][row][column] == pytest.approx(np.mean(accuracies), abs=1e-6)
            assert made["ci95"][row][column] == pytest.approx(interval(np.array(accuracies), unit="episodes"), abs=1e-6)


def test_a_surface_embeds_every_image_once(world, method):
    with torch.no_grad():
        surface(
            method, world.table("test"), world.viewer, eligible_groups=None, seed=0, between=lambda: None, episodes=20
        )
    seen = torch.cat(world.seen)
    assert len(seen) == len(seen.unique())


def test_a_surface_within_groups_is_as_wide_as_the_smallest_that_the_test_draws_from(world, method):
    """Groups of 12, 6, 4 and 2 classes under a 4-way test."""
    groups = np.repeat(["a", "b", "c", "d"], [12, 6, 4, 2]).tolist()
    table = ClassTable.build(world.labels, [f"class{c:02d}" for c in range(24)], groups, np.arange(len(world.labels)))
    test = Episodes(
        table, world.viewer, n_way=4, n_shot=1, n_query=1, within_group=True, episodes=300, seed=0, part="test"
    )
    eligible = test.sampler.eligible_groups
    world.seen.clear()
    with torch.no_grad():
        made = surface(method, table, world.viewer, eligible_groups=eligible, seed=0, between=lambda: None)
    assert made["ways"] == [2, 3]
    assert made["within_group"] is True
    drawn_from = set(np.array(groups)[world.labels[torch.cat(world.seen)]])
    assert drawn_from == {"a", "b", "c"}


def test_a_constant_network_is_at_chance_everywhere(world, make_method):
    method = make_method()
    method.embed = lambda images: torch.ones(len(images), 5)
    with torch.no_grad():
        made = surface(method, world.table("test"), world.viewer, eligible_groups=None, seed=0, between=lambda: None)
    for n_way, row in zip(made["ways"], made["accuracy"], strict=True):
        assert row == pytest.approx([1 / n_way] * len(made["shots"]))


def test_pictures_in_a_row():
    dark, bright = torch.zeros(1, 4, 3), torch.full((1, 4, 3), 2.0)
    picture = in_a_row([dark, bright])
    assert picture.shape == (4, 3 + 4 + 3, 3)
    assert (picture[:, :3] == 0).all()
    assert (picture[:, 3:] == 255).all()


def test_trap_01_a_constant_method_knows_every_class_alike(world, make_method, hardware):
    method = make_method()
    method.embed = lambda images: torch.ones(len(images), 5)
    content = analyse(method, {"a": world.protocol("test", episodes=10)}, hardware=hardware).content
    assert [row["accuracy"] for row in content["classes"]] == pytest.approx([1 / 4] * 6)
