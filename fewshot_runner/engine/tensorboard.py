"""What a run shows in TensorBoard: scalars, its hyperparameters, example episodes, and embeddings.

Hyperparameters go into the run's own folder, so one run is one row of the HPARAMS tab: two of the summaries that
make a row are written at the start, the third, which ends the session, with the results.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from fewshot_runner.engine.answers import embed_all
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.evaluate import normalising
from fewshot_runner.engine.pictures import confusion_picture, episode_picture
from fewshot_runner.engine.protocols.base import Evaluation, Protocol
from fewshot_runner.engine.protocols.episodes import EpisodeProtocol, Episodes
from fewshot_runner.methods.base import EmbeddingMethod, Method, evaluating
from fewshot_runner.runs import RunFolder

TEST_METRIC = "accuracy/test"
EXAMPLE_EPISODES = 3
PROJECTED_IMAGES = 1000
THUMBNAIL = 48  # pixels: TensorBoard lays all of them out in one picture of at most 8192
MOST_IMAGES = 500  # of an example episode


class TensorBoard:
    """The events of one run. `resumed_after` drops what an interrupted session wrote after that step."""

    def __init__(self, run: RunFolder, *, resumed_after: int | None) -> None:
        self.writer = SummaryWriter(
            run.tensorboard, purge_step=None if resumed_after is None else resumed_after + 1, max_queue=1000
        )

    def scalar(self, tag: str, value: float, step: int) -> None:
        self.writer.add_scalar(tag, value, step)

    def hyperparameters(self, settings: dict[str, Any]) -> None:
        """Plain values by dotted name; what TensorBoard cannot hold (lists, None) is shown as text."""
        plain = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in settings.items()
        }
        experiment, start, self._end = hparams(plain, {TEST_METRIC: 0.0})
        self.writer.file_writer.add_summary(experiment)
        self.writer.file_writer.add_summary(start)

    def finish(self, results: list[dict[str, Any]], *, step: int) -> None:
        """The first result is the run's figure in the HPARAMS tab."""
        for result in results:
            self.writer.add_scalar(f"test/{result['name']}", result[result["metric"]], step)
        self.writer.add_scalar(TEST_METRIC, results[0][results[0]["metric"]], step)
        self.writer.file_writer.add_summary(self._end)

    def confusion(self, name: str, evaluation: Evaluation, classes: Sequence[str], *, step: int) -> None:
        """How often images of one class were taken for another, where the protocol counts that."""
        if evaluation.confusion is not None:
            picture = confusion_picture(evaluation.confusion, classes)
            self.writer.add_image(f"confusion/{name}", picture, step, dataformats="HWC")

    def examples(self, method: Method, protocol: Protocol, hardware: Hardware, *, step: int) -> None:
        """A few test episodes with right and wrong answers framed, and the embeddings of test images."""
        with torch.no_grad(), evaluating(method), normalising(method, protocol.bn_mode), hardware.autocast():
            n_pictures = min(EXAMPLE_EPISODES, len(protocol)) if isinstance(protocol, EpisodeProtocol) else 0
            for number in range(n_pictures):
                drawn = protocol.draw(number, number + 1)
                if drawn.n_images > MOST_IMAGES:
                    break
                episode = drawn.map(protocol.viewer.pictures).to(hardware.device)
                picture = episode_picture(episode, method.classify(episode).argmax(-1))
                self.writer.add_image(f"episodes/{number}", picture, step, dataformats="HWC")
            if isinstance(method, EmbeddingMethod) and isinstance(protocol, Episodes):
                table = protocol.sampler.classes
                chosen = np.linspace(0, len(table.members) - 1, min(PROJECTED_IMAGES, len(table.members))).astype(int)
                index = torch.from_numpy(table.members[chosen])
                shutil.rmtree(Path(self.writer.log_dir) / f"{step:05d}", ignore_errors=True)  # of a session before
                self.writer.add_embedding(
                    embed_all(method, protocol.viewer, index).flatten(1).float().cpu(),
                    metadata=[table.names[label] for label in table.image_labels[chosen]],
                    label_img=thumbnails(protocol.viewer.pictures(index)),
                    tag="test",
                    global_step=step,
                )

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def thumbnails(images: Tensor) -> Tensor:
    """(B, C, H, W) to smaller ones of values in 0..1."""
    images = images.float().cpu()
    size = min(THUMBNAIL, *images.shape[-2:])
    low, high = images.min(), images.max()
    return functional.interpolate((images - low) / (high - low).clamp(min=1e-6), (size, size), mode="area")
