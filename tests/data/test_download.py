"""Downloads from a server of our own: whole files and every way to get none."""

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fewshot_runner.data.download import fetch
from fewshot_runner.errors import UserError

CONTENT = os.urandom(100_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/garbage":
            self.wfile.write(b"this is no HTTP\r\n\r\n")
            return
        self.send_response(302 if self.path == "/moved" else 404 if self.path == "/absent" else 200)
        if self.path == "/moved":
            self.send_header("Location", "/file")
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:50_000] if self.path == "/cut" else CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def listed(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("page", ["file", "moved"])
@pytest.mark.parametrize("md5", [MD5, None], ids=["md5", "no md5"])
def test_a_file_arrives_whole_in_a_folder_made_for_it(tmp_path, server, page, md5):
    path = tmp_path / "new" / "folder" / "data.zip"
    fetch(f"{server}/{page}", path, md5=md5)
    assert path.read_bytes() == CONTENT
    assert listed(path.parent) == ["data.zip"]


@pytest.mark.parametrize("page", ["file", "absent", "cut", "garbage"])
@pytest.mark.parametrize("before", [b"old", None], ids=["old file", "no file"])
def test_what_is_wrong_leaves_nothing_behind_and_keeps_what_was_there(tmp_path, server, page, before):
    path = tmp_path / "data.zip"
    if before is not None:
        path.write_bytes(before)
    url = f"{server}/{page}"
    with pytest.raises(UserError) as caught:
        fetch(url, path, md5=hashlib.md5(b"other").hexdigest() if page == "file" else MD5)
    assert str(path) in str(caught.value)
    assert f"download {url} by hand" in str(caught.value)
    assert listed(tmp_path) == ([] if before is None else ["data.zip"])
    assert before is None or path.read_bytes() == before


def test_no_server_is_an_error_of_the_same_kind(tmp_path, server):
    with pytest.raises(UserError, match="could not be downloaded"):
        fetch("http://127.0.0.1:9/file", tmp_path / "data.zip", md5=MD5)
    with pytest.raises(UserError, match="could not be downloaded"):
        fetch("no url at all", tmp_path / "data.zip", md5=MD5)
    assert listed(tmp_path) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path, server):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/data.zip .*by hand and put it there"):
        fetch(f"{server}/file", tmp_path / "file" / "data.zip", md5=MD5)


def test_the_file_gets_the_rights_that_the_umask_gives(tmp_path, server):
    previous = os.umask(0o022)
    try:
        fetch(f"{server}/file", tmp_path / "data.zip", md5=MD5)
    finally:
        os.umask(previous)
    assert (tmp_path / "data.zip").stat().st_mode & 0o777 == 0o644
