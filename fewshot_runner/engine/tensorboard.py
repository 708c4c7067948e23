"""What a run shows in TensorBoard: scalars, its hyperparameters, example episodes, and embeddings.

Scalars are called FIGURE/train, FIGURE/val and FIGURE/test whatever the method, so runs share their charts.

Hyperparameters go into the run's own folder, so one run is one row of the HPARAMS tab: the summary that begins a row is
written at the start, the one that ends it with the results. The third of torch's summaries, which lists the columns, is
left out: TensorBoard takes the first list that it finds for all runs, and without one has a column for every setting
and figure of any run.
"""

import shutil
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import custom_scalars, hparams

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.engine.answers import embed_all
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.evaluate import answering
from fewshot_runner.engine.pictures import MOST_IMAGES, confusion_picture, episode_picture, unit_range
from fewshot_runner.engine.protocols.base import Evaluation, Protocol
from fewshot_runner.engine.protocols.episodes import EpisodeProtocol
from fewshot_runner.engine.results import MOST_CLASSES
from fewshot_runner.methods.base import EmbeddingMethod, Method
from fewshot_runner.runs import RunFolder

# The CUSTOM SCALARS tab: charts and the tags in each, as regular expressions. The same in every run, so that
# TensorBoard puts all runs into these charts.
LAYOUT = {
    "training and validation": {
        "training loss and validation figure": ["Multiline", ["loss/train", r"(accuracy|map_at_\d+)/val"]],
        "loss": ["Multiline", ["loss/(train|val)"]],
        "validation and test figure": ["Multiline", [r"(accuracy|map_at_\d+)/(val|test)"]],
    }
}
OF_TESTS = ".test"  # how the file of events ends that tests are told in
EXAMPLE_EPISODES = 3
PROJECTED_CLASSES, PROJECTED_IMAGES = 20, 300  # few classes with many images each: what clusters there are is seen
THUMBNAIL = 48  # pixels: TensorBoard lays all of them out in one picture of at most 8192


class TensorBoard:
    """The events of one run. `resumed_after` drops what an interrupted session wrote after that step."""

    def __init__(self, run: RunFolder, *, resumed_after: int | None) -> None:
        first = 0 if resumed_after is None else resumed_after + 1
        # Also at the start, as TensorBoard takes only the second such mark for a restart.
        self.writer = SummaryWriter(run.tensorboard, purge_step=first, max_queue=1000)
        self.folder = run.tensorboard
        self.tests: SummaryWriter | None = None

    def scalar(self, tag: str, value: float, step: int) -> None:
        self.writer.add_scalar(tag, value, step)

    def hyperparameters(self, settings: dict[str, Any]) -> None:
        """Plain values by dotted name, and the layout of the charts; again after a resume, as a kill may lose them."""
        _, start, self._end = hparams({name: shown(value) for name, value in settings.items()}, {})
        for summary in (start, custom_scalars(LAYOUT)):
            self.writer.file_writer.add_summary(summary)

    def begin_tests(self) -> None:
        """What is told of tests has a file of its own, which takes the place of that of a session before: the step is
        that of the best weights, where a purge of later steps leaves it standing.
        """
        for old in (*self.folder.glob(f"*{OF_TESTS}"), *self.folder.glob("projector_config.pbtxt")):
            old.unlink()
        self.tests = SummaryWriter(self.folder, filename_suffix=OF_TESTS, max_queue=1000)

    def finish(self, results: list[dict[str, Any]], *, step: int) -> None:
        """The first result is the run's figure in the HPARAMS tab."""
        for result in results:
            self.tests.add_scalar(f"test/{result['name']}", result[result["metric"]], step)
        metric = results[0]["metric"]
        self.tests.add_scalar(f"{metric}/test", results[0][metric], step)
        self.tests.file_writer.add_summary(self._end)

    def confusion(self, name: str, evaluation: Evaluation, classes: Sequence[str], *, step: int) -> None:
        """How often images of one class were taken for another, where the protocol counts that."""
        if evaluation.confusion is not None and len(evaluation.confusion) <= MOST_CLASSES:
            picture = confusion_picture(evaluation.confusion, classes)
            self.tests.add_image(f"confusion/{name}", picture, step, dataformats="HWC")

    def examples(self, method: Method, tests: Iterable[Protocol], hardware: Hardware, *, step: int) -> None:
        """A few test episodes with right and wrong answers framed, and the embeddings of images that are asked about:
        of the first of the tests that has them.
        """
        tests = list(tests)
        of_episodes = next((test for test in tests if isinstance(test, EpisodeProtocol)), None)
        if of_episodes is not None:
            self._episodes(method, of_episodes, hardware, step=step)
        of_classes = next((test for test in tests if test.table is not None), None)
        if of_classes is not None and isinstance(method, EmbeddingMethod):
            self._embeddings(method, of_classes, hardware, step=step)

    def _episodes(self, method: Method, protocol: EpisodeProtocol, hardware: Hardware, *, step: int) -> None:
        with answering(method, protocol, hardware):
            for number in range(min(EXAMPLE_EPISODES, len(protocol))):
                drawn = protocol.draw(number, number + 1)
                if drawn.n_images > MOST_IMAGES:
                    break
                episode = drawn.map(protocol.viewer.pictures).to(hardware.device)
                picture = episode_picture(episode, method.classify(episode).argmax(-1))
                self.tests.add_image(f"episodes/{number}", picture, step, dataformats="HWC")

    def _embeddings(self, method: EmbeddingMethod, protocol: Protocol, hardware: Hardware, *, step: int) -> None:
        table = protocol.table
        chosen = projected(table)
        index = torch.from_numpy(table.members[chosen])
        shutil.rmtree(self.folder / f"{step:05d}", ignore_errors=True)  # of a session before
        with answering(method, protocol, hardware):
            self.tests.add_embedding(
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
        if self.tests is not None:
            self.tests.close()


def projected(table: ClassTable) -> np.ndarray:
    """Which of the table's `members` the projector shows: the first images of classes that lie evenly among all."""
    classes = np.linspace(0, table.n_classes - 1, min(PROJECTED_CLASSES, table.n_classes)).astype(int)
    of_each = PROJECTED_IMAGES // len(classes)
    return np.concatenate([np.arange(table.offsets[c], min(table.offsets[c + 1], table.offsets[c] + of_each))
                           for c in classes])  # fmt: skip


def shown(value: Any) -> int | float | str:
    """A setting as TensorBoard can hold it: numbers, and the others in words, as YAML has them."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return value if isinstance(value, int | float) else str(value)


def thumbnails(images: Tensor) -> Tensor:
    """(B, C, H, W) to smaller ones of values in 0..1."""
    size = min(THUMBNAIL, *images.shape[-2:])
    return functional.interpolate(unit_range(images), (size, size), mode="area")
