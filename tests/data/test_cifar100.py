"""CIFAR-100 from made archives in its own layout: every class in its superclass, but few images of each."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from fewshot_runner.data import download
from fewshot_runner.data.sources import cifar100
from fewshot_runner.data.sources.cifar100 import Cifar100
from fewshot_runner.errors import Absent, UserError

IMAGES = {"train": 2, "test": 1}


@pytest.fixture
def shared_splits(shared_data) -> Path:
    if not (shared_data / "splits" / "fc100").is_dir():
        pytest.skip(f"needs the published lists, and {shared_data}/splits/fc100 is absent; set FSL_DATA")
    return shared_data / "splits"


@pytest.fixture
def published(shared_splits) -> dict[str, list[list[str]]]:
    """The published lists of cifar_fs: of each part, superclass and class."""
    return {
        part: json.loads((shared_splits / "cifar-fs" / "bertinetto" / f"{part}.json").read_text())
        for part in ("train", "val", "test")
    }


@pytest.fixture
def files(published, monkeypatch) -> dict[str, bytes]:
    monkeypatch.setattr(cifar100, "IMAGES", IMAGES)
    classes = sorted(fine for listed in published.values() for _, fine in listed)
    above = {fine: coarse for listed in published.values() for coarse, fine in listed}
    superclasses = sorted(set(above.values()))
    random = np.random.default_rng(0)
    made = {
        "fine_label_names.txt": "\n".join(classes).encode() + b"\n",
        "coarse_label_names.txt": "\n".join(superclasses).encode() + b"\n",
    }
    for part, count in IMAGES.items():
        labels = random.permutation(np.arange(100).repeat(count))
        records = [
            bytes([superclasses.index(above[classes[label]]), label]) + random.bytes(3 * 32 * 32) for label in labels
        ]
        made[f"{part}.bin"] = b"".join(records)
    return made


@pytest.fixture
def root(files, tmp_path) -> Path:
    """A data folder with the archive."""
    with tarfile.open(tmp_path / "cifar-100-binary.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-100-binary/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return tmp_path


def unpacked(root: Path) -> Path:
    with tarfile.open(root / "cifar-100-binary.tar.gz") as archive:
        archive.extractall(root, filter="data")
    (root / "cifar-100-binary.tar.gz").unlink()
    return root / "cifar-100-binary"


def test_images_are_those_of_the_file_with_class_and_superclass(root, files):
    source = Cifar100(root=str(root))
    items = source.items()
    names = {kind: files[f"{kind}_label_names.txt"].decode().split() for kind in ("fine", "coarse")}
    assert len(items) == 300
    for index in (0, 7, 199, 200, 299):
        part, number = ("train", index) if index < 200 else ("test", index - 200)
        record = files[f"{part}.bin"][number * 3074 : (number + 1) * 3074]
        coarse, fine = names["coarse"][record[0]], names["fine"][record[1]]
        assert (items[index].name, items[index].class_name, items[index].group) == (
            f"{part}/{number:05d}",
            f"{coarse}/{fine}",
            coarse,
        )
        picture = source.image(index)
        assert picture.size == (32, 32)
        for x, y in ((0, 0), (5, 30), (31, 2)):  # red, green and blue lie one after the other, rows from the top
            assert picture.getpixel((x, y)) == tuple(record[2 + 1024 * channel + 32 * y + x] for channel in range(3))


def test_an_unpacked_folder_holds_the_same(root):
    packed = Cifar100(root=str(root))
    identity, items = packed.identity(), packed.items()
    pictures = [packed.image(index).tobytes() for index in range(300)]
    unpacked(root)
    source = Cifar100(root=str(root))
    assert source.items() == items
    assert [source.image(index).tobytes() for index in range(300)] == pictures
    assert source.identity() != identity


def test_cifar_fs_divides_as_published(root, published):
    split = Cifar100(root=str(root)).split("cifar_fs")
    assert {part: sorted(map("/".join, listed)) for part, listed in published.items()} == {
        part: sorted(names) for part, names in split.classes.items()
    }
    assert [len(split.classes[part]) for part in ("train", "val", "test")] == [64, 16, 20]


def test_fc100_divides_superclasses_as_published(root, shared_splits):
    split = Cifar100(root=str(root)).split("fc100")
    for part in ("train", "val", "test"):
        superclasses = json.loads((shared_splits / "fc100" / f"{part}.json").read_text())
        assert {name.partition("/")[0] for name in split.classes[part]} == set(superclasses)
        assert len(split.classes[part]) == 5 * len(superclasses)


def test_a_split_reads_no_image(root):
    """So that a run whose images are decoded already does not unpack them again."""
    source = Cifar100(root=str(root))
    (root / "cifar-100-binary.tar.gz").write_bytes(b"")
    assert len(source.split("fc100").classes["train"]) == 60


def test_other_splits_are_refused(root):
    with pytest.raises(UserError, match=r"dataset\.split=random: CIFAR-100 has the splits cifar_fs and fc100"):
        Cifar100(root=str(root)).split("random")


def test_where_it_is_absent_it_is_downloaded_with_its_checksum_or_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(download, "fetch", lambda url, path, *, md5: asked.append((url, path.name, md5)))
    Cifar100(root=str(tmp_path))
    assert asked == [
        (
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            "cifar-100-binary.tar.gz",
            "03b5dce01913d631647c71ecec9e9cb8",
        )
    ]
    with pytest.raises(Absent, match=r"^download=false: CIFAR-100 .* is neither"):
        Cifar100(root=str(tmp_path), download=False)
    assert len(asked) == 1


@pytest.mark.parametrize("name", ["train.bin", "test.bin", "fine_label_names.txt"])
def test_what_is_damaged_is_refused_with_what_to_do(root, name):
    file = unpacked(root) / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-3074] if name.endswith("bin") else whole.partition(b"\n")[2])
    with pytest.raises(UserError, match=r"damaged or incomplete .*delete it and let fsl download it again"):
        Cifar100(root=str(root)).items()
    if name.endswith("bin"):  # as many bytes, and a class that has one image more than another
        file.write_bytes(bytes([whole[0], (whole[1] + 1) % 100]) + whole[2:])
        with pytest.raises(UserError, match="images of each class"):
            Cifar100(root=str(root)).items()
    file.unlink()
    with pytest.raises(UserError, match="damaged or incomplete"):
        Cifar100(root=str(root)).items()


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9])
def test_an_archive_with_a_flipped_bit_is_refused(root, share):
    archive = root / "cifar-100-binary.tar.gz"
    content = bytearray(archive.read_bytes())
    content[int(share * len(content))] ^= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match="damaged or incomplete"):
        Cifar100(root=str(root)).items()


def test_an_archive_that_is_cut_off_is_refused(root):
    archive = root / "cifar-100-binary.tar.gz"
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(UserError, match="damaged or incomplete"):
        Cifar100(root=str(root)).items()
