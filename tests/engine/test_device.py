"""Device, threads and precision."""

import ast
import copy
import os
import re
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path

import pytest
import torch

import fewshot_runner
from fewshot_runner.cores import available_cores
from fewshot_runner.engine.device import Hardware, choose_device, set_deterministic
from fewshot_runner.engine.experiment import Experiment
from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.methods.base import evaluating
from fewshot_runner.methods.maml import Maml
from fewshot_runner.methods.prototypical import Prototypical
from fewshot_runner.models.batch_norm import normalised_by
from fewshot_runner.models.conv4 import Conv4
from fewshot_runner.models.conv_block import ConvBlock
from fewshot_runner.models.siamese_cnn import SiameseCnn


def pretend(monkeypatch: pytest.MonkeyPatch, *, gpus: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("gpus", "mps", "chosen"), [(0, False, "cpu"), (0, True, "mps"), (2, False, "cuda"), (1, True, "cuda")]
)
def test_auto_takes_a_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, gpus: int, mps: bool, chosen: str
) -> None:
    pretend(monkeypatch, gpus=gpus, mps=mps)
    assert choose_device("auto").type == chosen


def test_a_device_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpus=2)
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cuda:x", "cpu:x", "cuda:-1", "cuda:2", "mps"])
def test_a_device_that_is_not_there_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pretend(monkeypatch, gpus=2)
    with pytest.raises(UserError, match=f"hardware.device={name}:"):
        choose_device(name)


def test_cuda_without_a_gpu_says_what_to_use() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=r"hardware\.device=cuda: .*hardware\.device=auto or cpu"):
        Hardware(device="cuda")


def test_a_seed_is_that_of_torchs_own_generators() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3), torch.randn(3)
    Hardware(device="cpu").seed(7)
    assert torch.equal(torch.rand(3), expected[0])
    assert torch.equal(torch.randn(3), expected[1])


def test_threads() -> None:
    assert Hardware(device="cpu", threads=1).threads == torch.get_num_threads() == 1
    assert Hardware(device="cpu").threads == torch.get_num_threads() == available_cores()
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    for threads in (0, -1, "many"):
        with pytest.raises(UserError, match=rf"hardware\.threads={threads}"):
            Hardware(device="cpu", threads=threads)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UserError, match=r"hardware\.precision=int8: .*float32, tf32, bfloat16"):
        Hardware(device="cpu", precision="int8")


@pytest.fixture
def deterministic_put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    set_deterministic(False)


def test_convolutions_on_a_gpu_are_coarser_only_where_that_is_asked(
    deterministic_put_back: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch rounds what enters them to 10 bits unless told otherwise; products of matrices it never does."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's default, and put back afterwards
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for precision in ("float32", "tf32", "bfloat16"):
        Hardware(device="cuda", threads=1, precision=precision)
        assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
        assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(("device", "wanted"), [("cuda", True), ("cuda", False), ("cpu", True)])
def test_a_gpu_repeats_itself_unless_told_otherwise(
    deterministic_put_back: None, monkeypatch: pytest.MonkeyPatch, device: str, wanted: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    Hardware(device="cuda", threads=1)  # of a job before
    Hardware(device=device, threads=1, deterministic=wanted)
    repeats = wanted and device == "cuda"
    assert torch.get_deterministic_debug_mode() == (1 if repeats else 0)  # 1: with a warning
    assert torch.backends.cudnn.deterministic == repeats
    assert torch.utils.deterministic.fill_uninitialized_memory != repeats
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_autocast_computes_in_the_chosen_precision() -> None:
    a = torch.eye(2)
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with Hardware(device="cpu", threads=1, precision=precision).autocast():
            assert (a @ a).dtype == dtype


class Pixels:
    """Stands for a tensor of so many bytes; notes where it is sent."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> "Pixels":
        moved = Pixels(self.nbytes)
        moved.device = device
        return moved


@pytest.mark.parametrize(("nbytes", "kept_on"), [(299, "cuda:1"), (300, "cpu"), (901, "cpu")])
def test_pixels_move_to_a_gpu_where_they_take_less_than_a_third_of_its_free_memory(
    deterministic_put_back: None, monkeypatch: pytest.MonkeyPatch, nbytes: int, kept_on: str
) -> None:
    pretend(monkeypatch, gpus=2)
    asked = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: asked.append(str(device)) or (900, 8000))
    pixels = Pixels(nbytes)
    kept = Hardware(device="cuda:1", threads=1).keep(pixels)
    assert str(kept.device) == kept_on
    assert (kept is pixels) == (kept_on == "cpu")
    assert asked == ["cuda:1"]


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_pixels_stay_in_memory_elsewhere(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    pretend(monkeypatch, mps=True)
    monkeypatch.delattr(torch.cuda, "mem_get_info")  # not to be asked
    pixels = Pixels(1)
    assert Hardware(device=device, threads=1).keep(pixels) is pixels


@pytest.mark.parametrize(
    ("device", "wanted", "kept"), [("cpu", True, True), ("cpu", False, False), ("mps", True, False)]
)
def test_freed_memory_is_kept_on_a_processor_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, device: str, wanted: bool, kept: bool
) -> None:
    pretend(monkeypatch, mps=True)
    calls = []
    monkeypatch.setattr("fewshot_runner.engine.device.keep_freed_memory", lambda: calls.append(True))
    Hardware(device=device, threads=1, keep_memory=wanted)
    assert calls == [True] * kept


@pytest.mark.parametrize("channels_last", [True, False])
def test_place_sets_the_memory_format(channels_last: bool) -> None:
    hardware = Hardware(device="cpu", threads=1, channels_last=channels_last)
    weight = hardware.place(torch.nn.Conv2d(3, 4, 3)).weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


@pytest.mark.parametrize("on", [True, False])
def test_place_turns_fast_paths_on_and_off(on: bool) -> None:
    facts = Facts(image_shape=(1, 16, 16), n_classes=3, n_way=3)
    method = Prototypical(Conv4(facts, widths=(4, 4)), distance="euclidean")
    Hardware(device="cpu", threads=1, fuse_blocks=on, fold_batch_norm=not on).place(method)
    blocks = [part for part in method.modules() if isinstance(part, ConvBlock)]
    assert len(blocks) == 2
    assert all(block.fuse_blocks == on and block.fold_batch_norm != on for block in blocks)
    siamese = SiameseCnn(Facts(image_shape=(1, 40, 40), n_classes=3, n_way=3))
    assert Hardware(device="cpu", threads=1, fuse_blocks=on).place(siamese).fuse_blocks == on
    maml = Maml(Conv4(facts, widths=(4, 4)), order=1)
    assert Hardware(device="cpu", threads=1, tasks_side_by_side=on).place(maml).tasks_side_by_side == on


def test_a_method_of_another_library_that_is_called_alike_stays() -> None:
    """RepVGG and LeViT of timm fuse their own layers."""

    class Other(torch.nn.Identity):
        def fuse(self) -> str:
            return "fused"

    assert Hardware(device="cpu", threads=1).place(Other()).fuse() == "fused"


def without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what compiles nothing."""
    monkeypatch.setattr("fewshot_runner.engine.device.check_compiler", lambda: None)


def test_a_compiled_backbone_gives_the_same_in_every_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a compiler that only records what it would compile: the real one takes minutes."""
    without_a_compiler(monkeypatch)
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="eager"))
    facts = Facts(image_shape=(1, 16, 16), n_classes=3, n_way=3)
    torch.manual_seed(0)
    plain = Prototypical(Conv4(facts, widths=(4, 4)), distance="euclidean")
    compiled = copy.deepcopy(plain)
    Hardware(device="cpu", threads=1, compile=True).place(compiled, compiled.backbone)
    images = torch.rand(6, 1, 16, 16)
    results = []
    for method in (plain, compiled):
        trained = method.embed(images)
        trained.square().sum().backward()
        gradients = [parameter.grad for parameter in method.backbone.parameters()]
        with torch.no_grad(), evaluating(method):
            running = method.embed(images)
            with normalised_by(method, lambda method=method: method.embed(images[:3])) as support:
                results.append([trained.detach(), *gradients, running, support, method.embed(images)])
    assert compiled.backbone._compiled_call_impl is not None
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_compiling_what_is_differentiated_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    without_a_compiler(monkeypatch)
    backbone = Conv4(Facts(image_shape=(1, 16, 16), n_classes=3, n_way=3), widths=(4, 4))
    compiling = Hardware(device="cpu", threads=1, compile=True)
    with pytest.raises(UserError, match=r"hardware\.compile=true: .* second derivatives.*method\.learner\.order=1"):
        compiling.place(Maml(backbone, order=2), backbone)
    assert compiling.place(Maml(backbone, order=1), backbone).backbone._compiled_call_impl is not None


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)  # which may be a path
    with pytest.raises(UserError, match=r"hardware\.compile=true: .*hardware\.compile=false"):
        Hardware(device="cpu", threads=1, compile=True)


def test_mixed_precision_trains_to_finite_float32_weights(make_experiment) -> None:
    experiment: Experiment = make_experiment(hardware=Hardware(device="cpu", threads=1, precision="bfloat16"))
    before = [parameter.detach().clone() for parameter in experiment.method.parameters()]
    for step in range(3):
        experiment.optimizer.zero_grad()
        with experiment.hardware.autocast():
            figures = experiment.method.backward(experiment.items[step])
        experiment.optimizer.step()
        assert figures["loss"].isfinite()
    for parameter, old in zip(experiment.method.parameters(), before, strict=True):
        assert parameter.dtype == torch.float32
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, old)


NAME_A_GPU = {
    "cli/sweeps/job.py": "gives the memory of a job back",
    "data/transfer.py": "copies to it on a stream of its own",
    "engine/device.py": "chooses it",
    "engine/environment.py": "notes what it is called",
    "models/precision.py": "knows that Apple's have no float64",
}


def names_a_gpu(code: str) -> bool:
    """Whether an attribute or a whole string of `code` is a GPU's name."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and node.attr in ("cuda", "mps"):
            return True
        if isinstance(node, ast.Constant) and re.fullmatch(r"(cuda|mps)(:\d*)?", str(node.value)):
            return True
    return False


@pytest.mark.parametrize(
    "code",
    ['x.to("cuda")', "x.cuda()", "zeros(3, device='cuda:0')", 'device(f"cuda:{n}")', "torch.cuda.synchronize()",
     'x.to(device="mps")'],
)  # fmt: skip
def test_a_gpu_that_is_named_is_seen(code: str) -> None:
    assert names_a_gpu(code)
    assert not names_a_gpu(f"x.to(device)  # or {code}")


def test_no_other_module_names_a_gpu() -> None:
    package = Path(fewshot_runner.__file__).parent
    files = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    assert {name for name, path in files.items() if names_a_gpu(path.read_text())} == NAME_A_GPU.keys()
