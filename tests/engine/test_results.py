"""What the summary says of an evaluation, and what lies beside it."""

import numpy as np
import pytest

from fewshot_runner.engine.protocols.base import Evaluation
from fewshot_runner.engine.results import keep_result, merge
from fewshot_runner.engine.tensorboard import TensorBoard
from fewshot_runner.runs import RunFolder

DATA = {"dataset": "cats", "split": "images", "split_hash": "0" * 16, "images_hash": "1" * 16}


@pytest.mark.parametrize("n_classes", [200, 201])
def test_a_large_confusion_matrix_is_a_file_and_no_picture(run_folder: RunFolder, monkeypatch, n_classes: int) -> None:
    counts = np.random.default_rng(0).integers(0, 5, (n_classes, n_classes))
    evaluation = Evaluation({"accuracy": np.ones(3)}, {"mode": "inductive"}, unit="images", confusion=counts)
    result = keep_result(evaluation, "closed_set", run_folder, data=DATA, step=5)
    board, pictures = TensorBoard(run_folder, resumed_after=None), []
    board.begin_tests()
    monkeypatch.setattr(board.tests, "add_image", lambda name, picture, *rest, **more: pictures.append(picture.shape))
    board.confusion("closed_set", evaluation, (), step=5)
    if n_classes == 200:
        assert result["confusion"] == counts.tolist()
        assert pictures == [(800, 800, 3)]
    else:
        assert np.array_equal(np.load(run_folder.path / result["confusion"]), counts)
        assert result["confusion"] != result["tasks"]
        assert pictures == []


def test_a_result_is_told_apart_by_what_was_measured_and_by_nothing_else(run_folder: RunFolder) -> None:
    described = {**DATA, "protocol": "closed_set", "n_shot": "all", "mode": "inductive"}
    evaluation = Evaluation(
        {"accuracy": np.array([0.0, 1.0]), "top5": np.ones(2)}, {**described}, unit="images", confusion=np.eye(2)
    )
    result = keep_result(evaluation, "closed_set", run_folder, data=DATA, step=5)
    figures = {"name", "step", "metric", "accuracy", "ci95", "unit", "tasks_count", "tasks", "further", "confusion"}
    assert result.keys() == described.keys() | figures
    for key in result.keys() - {"metric"}:
        other = {**result, key: "another"}
        assert merge([result], [other]) == ([other] if key in figures else [result, other]), key
