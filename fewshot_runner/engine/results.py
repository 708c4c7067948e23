"""What the summary of a run says of its evaluations: one entry a kind of task."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fewshot_runner import atomic
from fewshot_runner.engine.protocols.base import Evaluation
from fewshot_runner.engine.submission import submission
from fewshot_runner.runs import FIGURES, RunFolder

Result = dict[str, Any]

MOST_CLASSES = 200  # whose confusion matrix stands in the summary; of more it is a file beside the tasks

# Keys of a result that do not say which tasks and data it is of; nor does the one that its metric names.
NOT_OF_THE_TASKS = ("name", "step", "metric", *FIGURES)


def keep_result(
    evaluation: Evaluation,
    name: str,
    run: RunFolder,
    *,
    data: Mapping[str, Any],
    step: int,
    earlier: Sequence[Result] = (),
) -> Result:
    """What the summary says of an evaluation of the weights of `step` on `data`, the entries of a `Provenance` and how
    its images were shown; every task's figure goes to the run folder.

    One of the `earlier` results that is of the same tasks lends its name: published figures stand under names.
    """
    described = {**data, **evaluation.protocol}
    kind = _kind(described)
    name = next((result["name"] for result in earlier if _kind_of(result) == kind), name)
    tasks = run.tasks_of(f"{data['dataset']}-{data['split']}-{name}-{kind}")  # one a kind of task, as results are
    atomic.write_array(tasks, evaluation.values.astype(np.float32))
    means = evaluation.means()
    result = {
        "name": name,
        **described,
        "step": step,
        "metric": evaluation.metric,
        evaluation.metric: means.pop(evaluation.metric),
        "ci95": evaluation.ci95,
        "unit": evaluation.unit,
        "tasks_count": len(evaluation.values),
        "tasks": tasks.relative_to(run.path).as_posix(),
    }
    if means:
        result["further"] = means
    if evaluation.answers:
        own = data == (run.read_data() or data)  # answers about other data do not take its place
        place = run.submission if own else run.submission_of(tasks.stem)
        atomic.write_text(place, submission(evaluation.answers))
    if (confusion := evaluation.confusion) is not None:
        if len(confusion) <= MOST_CLASSES:
            result["confusion"] = confusion.tolist()
        else:
            counts = tasks.with_stem(f"{tasks.stem}-confusion")
            atomic.write_array(counts, confusion)
            result["confusion"] = counts.relative_to(run.path).as_posix()
    return result


def merge(earlier: Sequence[Result], new: Sequence[Result]) -> list[Result]:
    """New results behind the earlier ones; one of the same tasks takes the place of its former figure.

    So the run's own results, which were there before any others, stay ahead of others of the same name.
    """
    return list(
        ({_kind_of(result): result for result in earlier} | {_kind_of(result): result for result in new}).values()
    )


def beside(own: Sequence[Result], others: Sequence[Result]) -> list[Result]:
    """The run's own results, and behind them what `others` say of other tasks."""
    known = {_kind_of(result) for result in own}
    return [*own, *(result for result in others if _kind_of(result) not in known)]


def _kind_of(result: Result) -> str:
    figures = (*NOT_OF_THE_TASKS, result.get("metric", "accuracy"))
    return _kind({key: value for key, value in result.items() if key not in figures})


def _kind(described: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:8]
