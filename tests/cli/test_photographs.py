"""Photographs that are kept at their own aspect ratio, of which the network sees the middle."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.trained import load_trained
from fewshot_runner.runs import RunFolder

KEPT = ("dataset.shorter_side=24", "dataset.image_size=16", "dataset.resample=bicubic")


def test_predict_shows_a_photograph_as_evaluation_did(fsl, tiny, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(9):
        folder = tmp_path / "photographs" / f"class{number}"
        folder.mkdir(parents=True)
        for each in range(3):
            noise = random.integers(256, size=(60 + 7 * number, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / f"{each}.png")
    own = [word for word in tiny() if word != "dataset=glyphs" and "dataset.source" not in word]
    answer = fsl(
        "train", *own, "dataset=folder", f"dataset.path={tmp_path}/photographs", "dataset.split=random", *KEPT,
        "method.sampler.n_classes=4", "episode.n_way=2", "episode.n_query=2", "trainer.max_steps=1",
        f"output_dir={tmp_path}/outputs",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    run = RunFolder.open(answer.run)
    dataset, pipeline = Builder(run.read_config()).dataset, load_trained(run).pipeline
    index = torch.from_numpy(dataset.images_of("test"))
    names = dataset.store.image_names[index.numpy()]
    views = [pipeline.view(Image.open(tmp_path / "photographs" / name)) for name in names]
    torch.testing.assert_close(pipeline(views), dataset.viewer("test", torch.device("cpu"))(index))
