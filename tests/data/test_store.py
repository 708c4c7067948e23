"""The store: the right pixels, a key that forgets nothing, every kind of damage, and many builders at once."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from fewshot_runner.data import layout as layout_module
from fewshot_runner.data import store as store_module
from fewshot_runner.data.source import Source
from fewshot_runner.data.store import Store, open_store
from fewshot_runner.errors import UserError

FILES = ["index.npz", "meta.json", "pixels.npy"]


def folders(cache: Path) -> list[str]:
    """What is in a cache folder beside the locks."""
    return sorted(entry.name for entry in cache.iterdir() if entry.suffix != ".lock")


def straightforward(source, size: int, mode: str) -> np.ndarray:
    """(I, C, size, size), an image at a time."""
    images = []
    for index in range(len(source.items())):
        image = source.image(index).convert(mode)
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        images.append(np.asarray(image).reshape(size, size, -1).transpose(2, 0, 1))
    return np.stack(images)


@pytest.mark.parametrize("size", [20, 13, 31])
@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_cold_and_warm_stores_hold_what_a_straightforward_decode_gives(tmp_path, squares, size, channels, mode):
    expected = straightforward(squares(), size, mode)
    source = squares()
    for asked in (range(36), []):  # the second time nothing is decoded
        source.decoded.clear()
        store = open_store(source, image_size=size, channels=channels, cache=tmp_path)
        assert sorted(source.decoded) == list(asked)
        assert store.pixels.dtype == np.uint8
        assert np.array_equal(store.pixels, expected)


def test_names_labels_and_groups_stand_beside_the_pixels(tmp_path, squares):
    source = squares()
    store = open_store(source, image_size=8, channels=1, cache=tmp_path)
    for index, item in enumerate(source.items()):
        assert store.image_names[index] == item.name
        assert store.class_names[store.labels[index]] == item.class_name
        assert store.class_groups[store.labels[index]] == item.group
    assert sorted(store.class_names) == sorted(source.classes)
    assert store.path.parent == tmp_path
    assert sorted(entry.name for entry in store.path.iterdir()) == FILES
    assert folders(tmp_path) == [store.path.name]


def test_arrays_that_an_earlier_version_kept_as_well_are_passed_over(tmp_path, squares):
    source = squares()
    path = open_store(source, image_size=8, channels=1, cache=tmp_path).path
    index, meta = path / "index.npz", json.loads((path / "meta.json").read_text())
    with np.load(index) as kept:
        np.savez(index, image_parts=np.array(["train"] * 36), **kept)
    status = index.stat()
    digest = hashlib.sha256(index.read_bytes()).hexdigest()
    meta["files"]["index.npz"] = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": digest}
    (path / "meta.json").write_text(json.dumps(meta))
    source.decoded.clear()
    store = open_store(source, image_size=8, channels=1, cache=tmp_path)
    assert source.decoded == [], "nothing is decoded anew"
    assert store.image_names.tolist() == [item.name for item in source.items()]


def test_the_key_covers_every_option_and_the_identity_of_the_source(tmp_path, squares, monkeypatch):
    def path(source, **options) -> Path:
        return open_store(source, **{"image_size": 8, "channels": 1, "cache": tmp_path, **options}).path

    other_name = squares()
    other_name.name = "other"
    paths = [
        path(squares()),
        path(squares(), image_size=9),
        path(squares(), channels=3),
        path(squares(version=2)),
        path(squares(n_images=5)),
        path(other_name),
        path(squares(), resample="bicubic"),
        path(squares(), shorter_side=8),
        path(squares(), shorter_side=9),
        path(squares(), shorter_side=8, channels=3),
        path(squares(), shorter_side=8, resample="bicubic"),
        path(squares(version=2), shorter_side=8),
    ]
    monkeypatch.setattr(store_module, "FORMAT", store_module.FORMAT + 1)
    paths.append(path(squares()))
    assert len(set(paths)) == len(paths)
    paths.append(path(squares(), shorter_side=8))
    assert len(set(paths)) == len(paths)
    assert path(squares()) == paths[-2], "and nothing else"
    assert path(squares(), shorter_side=8, image_size=7) == paths[-1], "whatever views are cut out of it"


def test_the_key_of_a_square_store_is_that_of_the_first_release(tmp_path, squares):
    """So a cache built then is found now: the first twenty digits of the digest of the options in sorted JSON."""
    options = {"format": 1, "image_size": 8, "channels": 1, "source": squares().identity()}
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()
    store = open_store(squares(), image_size=8, channels=1, cache=tmp_path)
    assert store.path.name == f"squares-8px-{digest[:20]}"


def test_the_pixels_in_memory_can_be_written_and_the_file_stays(tmp_path, squares):
    store = open_store(squares(), image_size=8, channels=1, cache=tmp_path)
    before = (store.path / "pixels.npy").read_bytes()
    store.pixels[:] = 7
    assert (store.path / "pixels.npy").read_bytes() == before


def test_progress_ends_with_all_images_and_is_silent_when_warm(tmp_path, squares):
    calls: list[tuple[int, int]] = []
    for _ in range(2):
        open_store(
            squares(n_images=200), image_size=8, channels=1, cache=tmp_path, progress=lambda *call: calls.append(call)
        )
    assert calls == [(500, 1200), (1000, 1200), (1200, 1200)]


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


RAGGED = ["index.npz", "meta.json", "pixels.bin"]


def damage_to(files: list[str]) -> dict[str, Callable[[Path], object]]:
    return {
        **{f"{name} truncated": lambda path, name=name: os.truncate(path / name, 100) for name in files},
        **{f"{name} emptied": lambda path, name=name: os.truncate(path / name, 0) for name in files},
        **{f"{name} missing": lambda path, name=name: (path / name).unlink() for name in files},
        **{f"{name} with a flipped bit": lambda path, name=name: flip_byte(path / name) for name in files[::2]},
        **{f"{name} longer": lambda path, name=name: (path / name).open("ab").write(b"\0") for name in files[::2]},
        "an empty folder": lambda path: [(path / name).unlink() for name in files],
    }


DAMAGE = {
    **damage_to(FILES),
    **{
        f"meta.json holding {content[:20]!r}": lambda path, content=content: (path / "meta.json").write_bytes(content)
        for content in (b"\xff\xfe\0", b"[]", b"null", b"{}", b'{"files": 3}', b'{"files": {"pixels.npy": {}}}')
    },
    "no folder": lambda path: shutil.rmtree(path),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_store_is_rebuilt(tmp_path, squares, damage):
    expected = straightforward(squares(), 20, "L")
    path = open_store(squares(), image_size=20, channels=1, cache=tmp_path).path
    damage(path)
    source = squares()
    store = open_store(source, image_size=20, channels=1, cache=tmp_path)
    assert sorted(source.decoded) == list(range(36))
    assert np.array_equal(store.pixels, expected)
    assert store.path == path
    assert folders(tmp_path) == [path.name]
    source.decoded.clear()
    open_store(source, image_size=20, channels=1, cache=tmp_path)
    assert not source.decoded, "and is whole again"


def check_ragged(store: Store, source: Source) -> None:
    """Pictures of shorter side 20, (H, W, C) one behind the other, resized as torchvision resizes those of Pillow."""
    assert store.pixels.dtype == np.uint8
    assert len(store.offsets) == 10
    assert (store.offsets[0], store.offsets[-1]) == (0, len(store.pixels))
    for index, (height, width) in enumerate(store.sizes):
        kept = store.pixels[store.offsets[index] : store.offsets[index + 1]].reshape(height, width, 3)
        resized = v2.Resize(20)(source.image(index))
        shape = min(resized.height, 60), min(resized.width, 60)
        expected = np.asarray(v2.CenterCrop(shape)(resized)).astype(int)
        assert kept.shape == expected.shape
        cut = shape != (resized.height, resized.width)
        assert np.abs(kept - expected).max() <= cut, "to the bit; of a panorama to a rounding"


def test_cold_and_warm_ragged_stores_hold_what_a_straightforward_decode_gives(tmp_path, photos):
    source = photos()
    calls: list[tuple[int, int]] = []
    for asked in (range(9), []):  # the second time nothing is decoded
        source.decoded.clear()
        store = open_store(
            source,
            image_size=16,
            shorter_side=20,
            channels=3,
            cache=tmp_path,
            progress=lambda *call: calls.append(call),
        )
        assert sorted(source.decoded) == list(asked)
        check_ragged(store, photos())
        assert store.image_names.tolist() == [item.name for item in source.items()]
        assert store.class_names[store.labels].tolist() == [item.class_name for item in source.items()]
    assert calls == [(9, 9)]
    assert sorted(entry.name for entry in store.path.iterdir()) == RAGGED
    assert folders(tmp_path) == [store.path.name]
    before = (store.path / "pixels.bin").read_bytes()
    store.pixels[:] = 7
    assert (store.path / "pixels.bin").read_bytes() == before, "the file stays"


@pytest.mark.parametrize("damage", damage_to(RAGGED).values(), ids=damage_to(RAGGED))
def test_a_damaged_ragged_store_is_rebuilt(tmp_path, photos, damage):
    def store(source):
        return open_store(source, image_size=16, shorter_side=20, channels=3, cache=tmp_path)

    path = store(photos()).path
    damage(path)
    source = photos()
    rebuilt = store(source)
    assert sorted(source.decoded) == list(range(9))
    check_ragged(rebuilt, photos())
    assert rebuilt.path == path
    assert folders(tmp_path) == [path.name]
    source.decoded.clear()
    store(source)
    assert not source.decoded, "and is whole again"


def test_a_ragged_build_that_fails_leaves_nothing_behind(tmp_path, photos, monkeypatch):
    def full(image, *arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(layout_module, "shorten", full)
    with pytest.raises(UserError, match=r"dataset.cache=.*No space left on device.*free space"):
        open_store(photos(), image_size=16, shorter_side=20, channels=3, cache=tmp_path)
    assert folders(tmp_path) == []


@pytest.mark.parametrize("kept", [{"image_size": 20}, {"image_size": 20, "shorter_side": 20}])
def test_all_images_that_cannot_be_decoded_are_named_at_once(tmp_path, squares, kept):
    class Damaged(squares):
        bad = frozenset({0, *range(5, 34, 4)})  # nine of the 36

        def image(self, index: int) -> Image.Image:
            if index in self.bad:
                raise UserError(f"{index}.png: the image is damaged")
            return super().image(index)

    with pytest.raises(UserError) as refused:
        open_store(Damaged(), channels=1, cache=tmp_path, **kept)
    named = [f"{index}.png: the image is damaged" for index in sorted(Damaged.bad)]
    assert str(refused.value).split("\n") == [*named[:6], "and 3 more"]
    assert folders(tmp_path) == []


def test_damage_under_an_unchanged_stamp_does_not_crash(tmp_path, squares):
    path = open_store(squares(), image_size=8, channels=1, cache=tmp_path).path
    status = (path / "index.npz").stat()
    (path / "index.npz").write_bytes(b"PK\3\4".ljust(status.st_size, b"\0"))
    os.utime(path / "index.npz", ns=(status.st_atime_ns, status.st_mtime_ns))
    store = open_store(squares(), image_size=8, channels=1, cache=tmp_path)
    assert store.class_names.tolist() == sorted(squares().classes)


def test_a_copied_cache_is_taken_as_it_is_and_read_whole_once(tmp_path, squares, monkeypatch):
    store = open_store(squares(), image_size=8, channels=1, cache=tmp_path / "one")
    shutil.copytree(store.path, tmp_path / "two" / store.path.name, copy_function=shutil.copyfile)  # new times
    source = squares()
    copy = open_store(source, image_size=8, channels=1, cache=tmp_path / "two")
    assert not source.decoded
    assert np.array_equal(copy.pixels, store.pixels)
    monkeypatch.setattr("fewshot_runner.data.store._sha256", lambda path: pytest.fail(f"{path} is read once more"))
    open_store(source, image_size=8, channels=1, cache=tmp_path / "two")
    assert not source.decoded


@pytest.mark.parametrize("failure", [UserError("7.png: damaged"), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_a_build_that_fails_leaves_nothing_behind(tmp_path, squares, failure):
    class Failing(squares):
        def image(self, index):
            if index == 7:
                raise failure
            return super().image(index)

    with pytest.raises(type(failure)) as caught:
        open_store(Failing(), image_size=8, channels=1, cache=tmp_path)
    assert caught.value is failure
    assert folders(tmp_path) == []
    assert len(open_store(squares(), image_size=8, channels=1, cache=tmp_path).pixels) == 36


@pytest.mark.parametrize("place", ["a file", "below a file"])
def test_a_cache_that_cannot_be_made_is_named(tmp_path, squares, place):
    (tmp_path / "file").write_text("")
    cache = tmp_path / "file" if place == "a file" else tmp_path / "file" / "cache"
    with pytest.raises(UserError, match=r"dataset.cache=.*file.*set dataset.cache or FSL_CACHE to a folder"):
        open_store(squares(), image_size=8, channels=1, cache=cache)
    assert folders(tmp_path) == ["file"]


def test_a_full_disk_is_an_error_before_the_first_image_and_leaves_nothing(tmp_path, squares, monkeypatch):
    def full(descriptor: int, offset: int, length: int) -> None:
        assert (offset, length) == (0, os.fstat(descriptor).st_size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    source = squares()
    with pytest.raises(UserError, match=r"dataset.cache=.*No space left on device.*free space"):
        open_store(source, image_size=8, channels=1, cache=tmp_path)
    assert not source.decoded
    assert folders(tmp_path) == []


def test_others_may_read_the_cache_that_the_umask_lets_them_read(tmp_path, squares):
    previous = os.umask(0o022)
    try:
        path = open_store(squares(), image_size=8, channels=1, cache=tmp_path).path
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == 0o755
    assert {name: (path / name).stat().st_mode & 0o777 for name in FILES} == dict.fromkeys(FILES, 0o644)


@pytest.fixture
def picture_folder(tmp_path) -> Path:
    random = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(0, 256, size=(24, 24), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number:02d}.png")
    return tmp_path / "pictures"


PROGRAM = """
import hashlib, os, sys, time
from pathlib import Path
from fewshot_runner.data.sources.folder import Folder
from fewshot_runner.data.store import open_store

class Watched(Folder):
    decoded = 0
    def image(self, index):
        Watched.decoded += 1
        time.sleep(0.002)
        if index == int(sys.argv[3]):
            os.kill(os.getpid(), 9)
        return super().image(index)

store = open_store(Watched(path=sys.argv[1]), image_size=16, channels=1, cache=Path(sys.argv[2]))
print(Watched.decoded, hashlib.sha256(store.pixels.tobytes()).hexdigest())
"""


def start(pictures: Path, cache: Path, *, dies_at: int = -1) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", PROGRAM, str(pictures), str(cache), str(dies_at)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_several_processes_build_one_good_store(tmp_path, picture_folder):
    processes = [start(picture_folder, tmp_path / "cache") for _ in range(4)]
    answers = [process.communicate()[0].split() for process in processes]
    assert sorted(int(decoded) for decoded, _ in answers) == [0, 0, 0, 60]
    assert len({digest for _, digest in answers}) == 1
    assert len(folders(tmp_path / "cache")) == 1


def test_a_build_that_was_killed_is_cleared_away_and_done_again(tmp_path, picture_folder):
    killed = start(picture_folder, tmp_path / "cache", dies_at=30)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    (half,) = folders(tmp_path / "cache")
    assert half.startswith("."), "half a store has no name that could be taken for a whole one"
    decoded, _ = start(picture_folder, tmp_path / "cache").communicate()[0].split()
    assert decoded == "60"
    (whole,) = folders(tmp_path / "cache")
    assert json.loads((tmp_path / "cache" / whole / "meta.json").read_text())["options"]["image_size"] == 16
