"""Against a server on this machine that does what servers do."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vlbench.core.errors import DataError
from vlbench.data.files.download import Patience, download

CONTENT = bytes(range(256)) * 2000


@dataclass
class Server:
    """What it will do, and the requests it got. cut: bytes after which the connection closes, per request."""

    url: str = ""
    content: bytes = CONTENT
    tag: str = '"one"'
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    stall: list[bool] = field(default_factory=list)
    redirect: str = ""
    asked: list[str | None] = field(default_factory=list)
    on_request: Callable[[Server], None] = lambda server: None


def handler_of(server: Server, done: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            server.asked.append(asked)
            server.on_request(server)
            status = server.statuses.pop(0) if server.statuses else 200
            if server.redirect:
                location, server.redirect = server.redirect, ""
                self.send_response(302)
                self.send_header("Location", location)
                self.end_headers()
                return
            if status != 200:
                self.send_response(status)
                self.send_header("Retry-After", "7")
                self.end_headers()
                return
            start = 0
            if asked and server.ranges and self.headers.get("If-Range") == server.tag:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(server.content) and start:
                self.send_response(416)
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            rest = server.content[start:]
            self.send_header("Content-Length", str(len(rest)))
            if server.tag:
                self.send_header("ETag", server.tag)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
            self.end_headers()
            cut = server.cuts.pop(0) if server.cuts else len(rest)
            self.wfile.write(rest[:cut])
            self.wfile.flush()
            if server.stall and server.stall.pop(0):
                done.wait(5)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    plan, done = Server(), threading.Event()
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(plan, done))
    plan.url = f"http://127.0.0.1:{http.server_port}/file.zip"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield plan
    done.set()
    http.shutdown()
    http.server_close()


def fetch(server: Server, target: Path, tries: int = 3, timeout: float = 10, **checksums: str) -> list[float]:
    """Fetch it and return the waits in between."""
    waits: list[float] = []
    patience = Patience(timeout=timeout, tries=tries, wait=waits.append)
    download(server.url, target, checksums, lambda done, total: None, patience)
    return waits


def test_whole(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.zip"
    assert fetch(server, target, sha256=hashlib.sha256(CONTENT).hexdigest()) == []
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["file.zip"]


def test_what_was_cut_off_goes_on(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000, 2000]
    assert len(fetch(server, tmp_path / "file.zip")) == 2
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-", "bytes=3000-"]


def test_a_later_command_goes_on(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000]
    with pytest.raises(DataError, match=r"failed 1 times in a row .*1,000 bytes are kept"):
        fetch(server, tmp_path / "file.zip", tries=1)
    fetch(server, tmp_path / "file.zip")
    assert server.asked[-1] == "bytes=1000-"
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_a_stalling_server_is_left_and_asked_again(server: Server, tmp_path: Path) -> None:
    server.cuts, server.stall = [500], [True]
    fetch(server, tmp_path / "file.zip", timeout=0.5)
    assert server.asked == [None, "bytes=500-"]
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.cuts, server.ranges = [1000], False
    fetch(server, tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_without_a_strong_tag_nothing_is_gone_on_from(server: Server, tmp_path: Path, tag: str) -> None:
    server.cuts, server.tag = [1000], tag
    fetch(server, tmp_path / "file.zip")
    assert server.asked == [None, None]
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_a_file_that_changed_in_between_starts_over(server: Server, tmp_path: Path) -> None:
    def change(server: Server) -> None:
        if len(server.asked) == 2:
            server.content, server.tag = CONTENT[::-1], '"two"'

    server.cuts, server.on_request = [1000], change
    fetch(server, tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT[::-1]


def test_a_file_that_became_shorter(server: Server, tmp_path: Path) -> None:
    def shorten(server: Server) -> None:
        if len(server.asked) == 2:
            server.content = CONTENT[:500]

    server.cuts, server.on_request = [1000], shorten
    fetch(server, tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT[:500]


def test_a_busy_server_says_when(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    assert fetch(server, tmp_path / "file.zip") == [7.0, 7.0]


def test_a_server_that_stays_busy(server: Server, tmp_path: Path) -> None:
    server.statuses = [503] * 9
    with pytest.raises(DataError, match=r"failed 3 times in a row \(status 503\)"):
        fetch(server, tmp_path / "file.zip")


def test_what_is_not_there_is_not_asked_for_twice(server: Server, tmp_path: Path) -> None:
    server.statuses = [404]
    with pytest.raises(DataError, match="answers 404"):
        fetch(server, tmp_path / "file.zip")
    assert len(server.asked) == 1


def test_redirects(server: Server, tmp_path: Path) -> None:
    server.redirect = server.url + "?moved"
    fetch(server, tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    (tmp_path / "secret").write_bytes(b"secret")
    server.redirect = (tmp_path / "secret").as_uri()
    with pytest.raises(DataError, match="is not allowed"):
        fetch(server, tmp_path / "other.zip")


def test_another_file_than_the_checksum_says(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has md5 .* where 0{32} is expected"):
        fetch(server, tmp_path / "file.zip", md5="0" * 32)
    assert not (tmp_path / "file.zip").exists()
    assert not (tmp_path / "file.zip.part").exists()


def test_no_space(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlbench.data.files.download.shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(DataError, match=r"needs 512,000 bytes more and .* has 1,000 left"):
        fetch(server, tmp_path / "file.zip")


def test_nobody_there(tmp_path: Path, server: Server) -> None:
    server.url = "http://127.0.0.1:9/file"
    with pytest.raises(DataError, match="failed 3 times in a row"):
        fetch(server, tmp_path / "file")
