"""What a result was measured on: results of one kind of test, and no others, may stand in one ranking."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewshot_runner.report.config import shown
from fewshot_runner.report.results import metric_of, mode_of
from fewshot_runner.runs import FIGURES

# What a result says besides which test it is of: its figures, and how many tasks, which is left to the pairing.
NOT_OF_THE_TEST = {"name", "step", "accuracy", "episodes", *FIGURES}


@dataclass(frozen=True)
class Test:
    """What a ranking is of. `key` tells tests apart; `name` is short, and need not."""

    key: str
    name: str
    metric: str
    unit: str
    fields: Mapping[str, Any]

    @property
    def tasks_are_fixed(self) -> bool:
        return self.fields.get("episode_seed") is None

    @property
    def title(self) -> str:
        """ "omniglot lake 5way1shot, inductive"."""
        return f"{self.fields['dataset']} {self.fields['split']} {self.name}"

    @property
    def mode(self) -> str:
        return mode_of(self.fields)

    @property
    def details(self) -> list[str]:
        """What makes the figures comparable."""
        said = [self.fields.get("protocol", "episodes"), self.mode]
        n_query = self.fields.get("n_query")
        if n_query is not None and said[0] != "closed_set":  # where that counts all images
            said.append(f"{n_query} {'query' if n_query == 1 else 'queries'} a class")
        if "split_hash" in self.fields:
            said.append(f"split {self.fields['split_hash']}")
        if "images_hash" in self.fields:  # which older results do not say: they stand apart, and together
            said.append(f"images {self.fields.get('files_hash', self.fields['images_hash'])}")
        return said

    def measured_over(self, n_tasks: int | None) -> list[str]:
        """What figures on so many tasks have in common.

        `n_tasks` is None where rows differ in it; the count is then left out.
        """
        count = f"{n_tasks:,} " if n_tasks else ""
        drawn = "" if self.tasks_are_fixed else f" of seed {self.fields['episode_seed']}"
        fixed = "fixed " if self.tasks_are_fixed else ""
        return [f"{count}{fixed}{self.unit}{drawn}", *self.details]


def test_of(result: Mapping[str, Any]) -> Test:
    metric = metric_of(result)
    fields = {name: value for name, value in result.items() if name not in NOT_OF_THE_TEST and name != metric}
    fields |= {"bn_mode": result.get("bn_mode", "running"), "metric": metric}  # which older results do not say
    fields = {name: value for name, value in fields.items() if value is not None or name == "episode_seed"}
    unit = result.get("unit", "episodes")
    if unit != "episodes":  # another number of pairs or images is another choice of them
        fields["tasks_count"] = result.get("tasks_count")
    by_files = "files_hash" in fields  # which tells a user's data whatever their folder is called
    telling = {name: value for name, value in fields.items() if not (by_files and name == "dataset")}
    return Test(json.dumps(telling, sort_keys=True, default=str), result["name"], metric, unit, fields)


def names_apart(tests: Sequence[Test]) -> dict[str, str]:
    """A name for each test by its key: its title, and where several are called so, in what it differs from them."""
    names = {}
    for test in tests:
        alike = [other for other in tests if other.title == test.title]
        fields = dict.fromkeys(field for other in alike for field in other.fields)
        differ = [field for field in fields if len({str(other.fields.get(field)) for other in alike}) > 1]
        said = " ".join(f"{field}={shown(test.fields.get(field))}" for field in differ)
        names[test.key] = f"{test.title} ({said})" if differ else test.title
    return names
