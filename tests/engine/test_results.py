"""What the summary says of an evaluation, and what lies beside it."""

import numpy as np
import pytest

from fewshot_runner.engine.protocols.base import Evaluation
from fewshot_runner.engine.results import keep_result
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
