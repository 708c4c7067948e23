"""What crosses to a GPU: no GPU is needed to see how it would be sent."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fewshot_runner.data.batch import Batch, Episode
from fewshot_runner.data.transfer import _copy_stream, to_device


class Gpu:
    """Stands for torch.cuda: notes what is asked of it, on which stream."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple] = []
        self.now = "computing"
        _copy_stream.cache_clear()
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: "copying")
        monkeypatch.setattr(torch.cuda, "stream", self.on)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(wait_stream=self.waits_for))

    @contextmanager
    def on(self, stream: str) -> Iterator[None]:
        self.now = stream
        yield
        self.now = "computing"

    def waits_for(self, stream: str) -> None:
        self.asked.append((self.now, "waits for", stream))


class Pixels:
    """Stands for a tensor on some device."""

    def __init__(self, device: str, gpu: Gpu, *, pinned: bool = False) -> None:
        self.device = torch.device(device)
        self.gpu = gpu
        self.pinned = pinned

    def pin_memory(self) -> "Pixels":
        assert self.device.type == "cpu", "memory of a GPU cannot be page-locked"
        return Pixels(str(self.device), self.gpu, pinned=True)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Pixels":
        assert self.pinned or not non_blocking, "ordinary memory may be used anew before it has been copied"
        self.gpu.asked.append((self.gpu.now, "copies", non_blocking))
        return Pixels(str(device), self.gpu)

    def record_stream(self, stream: SimpleNamespace) -> None:
        self.gpu.asked.append((self.gpu.now, "uses", self.device.type))


@pytest.fixture
def gpu(monkeypatch):
    yield Gpu(monkeypatch)
    _copy_stream.cache_clear()


def test_a_gpu_copies_from_page_locked_memory_while_it_computes(gpu):
    assert to_device(Pixels("cpu", gpu), torch.device("cuda")).device.type == "cuda"
    expected = [("copying", "copies", True), ("computing", "waits for", "copying"), ("computing", "uses", "cuda")]
    assert gpu.asked == expected


@pytest.mark.parametrize(("at", "to"), [("cuda:0", "cuda:0"), ("cuda:0", "cpu"), ("cpu", "mps")])
def test_elsewhere_nothing_is_page_locked(gpu, at, to):
    to_device(Pixels(at, gpu), torch.device(to))
    assert gpu.asked == [("computing", "copies", False)]


def test_all_of_an_item_is_sent_alike(monkeypatch):
    """A single tensor from ordinary memory would wait for the GPU."""
    crossing = []
    monkeypatch.setattr("fewshot_runner.data.batch.to_device", lambda values, device: crossing.append(values) or values)
    batch = Batch(*torch.arange(16).view(4, 4))
    episode = Episode(*torch.arange(16).view(4, 4), n_way=2)
    for item, count in ((batch, 4), (replace(batch, pairs=None), 3), (episode, 4)):
        crossing.clear()
        item.to(torch.device("meta"))
        assert len({values.data_ptr() for values in crossing}) == len(crossing) == count
