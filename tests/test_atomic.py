"""Files that are whole or not there: content, order of system calls, failures, and readers at the same time."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from fewshot_runner import atomic


def listed(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_content_is_written_and_replaced(tmp_path):
    path = tmp_path / "file"
    atomic.write_bytes(path, b"old and longer")
    atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    atomic.write_text(path, "grün\n")
    assert path.read_bytes() == b"gr\xc3\xbcn\n"
    assert listed(tmp_path) == ["file"]


def test_json_is_readable_and_refuses_what_json_has_not(tmp_path):
    path = tmp_path / "file.json"
    atomic.write_json(path, {"accuracy": 0.1 + 0.2, "name": "Ω"})
    assert json.loads(path.read_text()) == {"accuracy": 0.1 + 0.2, "name": "Ω"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(path, {"accuracy": float("nan")})
    assert json.loads(path.read_text())["name"] == "Ω"
    assert listed(tmp_path) == ["file.json"]


def test_an_array_comes_back_and_objects_are_never_pickled(tmp_path):
    path = tmp_path / "file.npy"
    content = np.arange(12, dtype=np.float32).reshape(3, 4).T
    atomic.write_array(path, content)
    assert np.array_equal(np.load(path, allow_pickle=False), content)
    with pytest.raises(ValueError, match="allow_pickle"):
        atomic.write_array(path, np.array([{}], dtype=object))
    assert np.array_equal(np.load(path, allow_pickle=False), content)


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    previous = os.umask(0o027)
    try:
        atomic.write_bytes(tmp_path / "file", b"x")
    finally:
        os.umask(previous)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_the_file_is_on_disk_before_its_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        file = os.fstat(descriptor)
        [target] = [path for path in (tmp_path, *tmp_path.iterdir()) if os.path.samestat(path.stat(), file)]
        calls.append(("fsync", "folder" if target == tmp_path else target.read_bytes()))
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        calls.append(("replace", Path(target).name))
        assert Path(source).parent == tmp_path, "a rename is atomic within one file system"
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    atomic.write_bytes(tmp_path / "file", b"content")
    assert calls == [("fsync", b"content"), ("replace", "file"), ("fsync", "folder")]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_a_failure_keeps_the_old_content_and_leaves_nothing_else(tmp_path, monkeypatch, call, failure):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_):
        raise failure

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(failure)):
        atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert listed(tmp_path) == ["file"]


def test_a_missing_folder_is_an_error_and_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        atomic.write_bytes(tmp_path / "absent" / "file", b"x")
    assert listed(tmp_path) == []


def test_readers_and_several_writers_at_once_see_whole_contents_only(tmp_path):
    path = tmp_path / "file"
    contents = [bytes([value]) * 300_000 for value in range(3)]
    atomic.write_bytes(path, contents[0])
    writers = [
        threading.Thread(target=lambda content=content: [atomic.write_bytes(path, content) for _ in range(15)])
        for content in contents
    ]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(path.read_bytes())
    assert seen | {path.read_bytes()} <= set(contents)
    assert listed(tmp_path) == ["file"]
