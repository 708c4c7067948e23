"""Settings by their dotted names, and which of them do not count, and for what: each key stands here once, with others
of its kind.
"""

from collections.abc import Mapping, Sequence
from typing import Any

OF_SWEEPS = ("sweep", "launcher")  # groups that say how runs come about, and stand in no run's config

WITHOUT_EFFECT = ("output_dir", "published", "trusted_packages", "dataset.cache")  # on anything that a run computes
LABELS = ("choices", "name")  # what was chosen is told by the settings that it has brought
PACE = ("trainer.log_every", "trainer.checkpoint_every")  # when something is written down
LAST_BITS = ("hardware.threads", "hardware.deterministic")  # of results; a parallel sweep decides the threads
PLACES = ("dataset.root", "dataset.path", "dataset.images")  # of the data; which they are is told by hashes
PLACES_OF_SOURCE = ("dataset.source.root", "dataset.source.path", "dataset.source.images")
TESTS = ("dataset.tests", "dataset.runs")  # that a run may be put to
SIZES = ("eval.episodes", "eval.pairs", "eval.runs")  # of its tests

# Two configs that differ in these alone are of the same sweep, job or experiment. A command names its data by PLACES
# alone, so these make another sweep. A run's config repeats them in its source, which tells jobs apart without PLACES.
SAME_SWEEP = (*WITHOUT_EFFECT, *LABELS, *PACE, *LAST_BITS)
SAME_JOB = (*SAME_SWEEP, *PLACES)
SAME_EXPERIMENT = (*WITHOUT_EFFECT, *PACE, *LAST_BITS, *PLACES, *PLACES_OF_SOURCE, *TESTS, *SIZES)
NO_HYPERPARAMETER = (*WITHOUT_EFFECT, *LABELS, *PLACES, *TESTS, "dataset.source")


def is_below(key: str, names: Sequence[str]) -> bool:
    """Whether a dotted key is one of `names`, or lies in a group that is."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups to one level of dotted names."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
