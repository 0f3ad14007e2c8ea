"""Against a server on this machine that does what servers do."""

from __future__ import annotations

import hashlib
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    kind: str = ""
    length: str = ""
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
            self.send_header("Content-Length", server.length or str(len(rest)))
            if server.kind:
                self.send_header("Content-Type", server.kind)
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


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Server]:
    plan, done = Server(), threading.Event()
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(plan, done))
    if context is not None:
        http.socket = context.wrap_socket(http.socket, server_side=True)
    http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that reject a certificate hang up
    plan.url = f"{'https' if context else 'http'}://127.0.0.1:{http.server_port}/file.zip"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield plan
    done.set()
    http.shutdown()
    http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as plan:
        yield plan


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with a certificate that this machine trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    places = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *places], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(context) as plan:
        yield plan


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


def test_https_is_not_left_by_a_redirect(secure: Server, server: Server, tmp_path: Path) -> None:
    fetch(secure, tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    for place in (server.url, "ftp://127.0.0.1/file.zip"):
        secure.redirect = place
        with pytest.raises(DataError, match=r"redirects to .*, which is not allowed"):
            fetch(secure, tmp_path / "other.zip")
    server.redirect = secure.url
    fetch(server, tmp_path / "third.zip")  # from http to https is fine
    assert (tmp_path / "third.zip").read_bytes() == CONTENT


def test_a_bad_certificate_is_not_asked_twice(secure: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    waits: list[float] = []
    with pytest.raises(DataError, match=r"the certificate of 127\.0\.0\.1:\d+ is not valid .*self.signed"):
        download(secure.url, tmp_path / "file.zip", {}, lambda *_: None, Patience(wait=waits.append))
    assert waits == [] and secure.asked == []


LOGIN = b"\r\n<!DOCTYPE html><form>Sign in<input type='password'></form>"


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/zip"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LOGIN, r"answers with a page that asks for a login instead of file\.zip"),
        (b"\xef\xbb\xbf<html>moved</html>", r"answers with a web page instead of file\.zip: open it in a browser"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "answers with a web page"),
    ],
)
def test_a_page_is_not_the_file(server: Server, tmp_path: Path, kind: str, content: bytes, message: str) -> None:
    server.kind, server.content = kind, content
    with pytest.raises(DataError, match=message):
        fetch(server, tmp_path / "file.zip")
    assert not (tmp_path / "file.zip").exists() and not (tmp_path / "file.zip.part").exists()


def test_a_page_for_a_moment_leaves_what_was_received(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000]
    with pytest.raises(DataError, match="failed 1 times"):
        fetch(server, tmp_path / "file.zip", tries=1)
    server.kind = "text/html"
    with pytest.raises(DataError, match="answers with a web page"):
        fetch(server, tmp_path / "file.zip")
    server.kind = ""
    fetch(server, tmp_path / "file.zip")
    assert server.asked[-1] == "bytes=1000-" and (tmp_path / "file.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("length", ["-5", "many", "512001"])
def test_a_wrong_length_is_not_believed(server: Server, tmp_path: Path, length: str) -> None:
    server.length = length
    if length.isdigit():
        with pytest.raises(DataError, match=r"failed 3 times in a row \(512,000 of 512,001 bytes were received\)"):
            fetch(server, tmp_path / "file.zip")
    else:
        fetch(server, tmp_path / "file.zip")
        assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_the_size_is_that_of_the_file_on_the_disk(server: Server, tmp_path: Path) -> None:
    def append(done: int, _: int) -> None:  # as another program would that writes to the same file
        if done == len(CONTENT) and len(server.asked) == 1:
            with (tmp_path / "file.zip.part").open("ab") as file:
                file.write(b"more")

    download(server.url, tmp_path / "file.zip", {}, append, Patience(wait=lambda _: None))
    assert len(server.asked) == 2 and (tmp_path / "file.zip").read_bytes() == CONTENT


def test_another_file_than_at_the_first_download(server: Server, tmp_path: Path) -> None:
    note, quiet = tmp_path / "notes" / "file.json", lambda *_: None
    download(server.url, tmp_path / "1.zip", {}, quiet, note=note)
    first = hashlib.sha256(CONTENT).hexdigest()
    assert json.loads(note.read_text()) == {"url": server.url, "sha256": first, "bytes": len(CONTENT)}
    download(server.url, tmp_path / "2.zip", {}, quiet, note=note)
    server.content, server.tag = CONTENT[::-1], '"two"'
    second = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(DataError, match=rf"not the file of its first download any more .*{second}.*{note}.*{first}"):
        download(server.url, tmp_path / "3.zip", {}, quiet, note=note)
    assert not (tmp_path / "3.zip").exists()
    download(server.url, tmp_path / "4.zip", {"sha256": second}, quiet, note=note)  # the card knows better
    assert json.loads(note.read_text())["sha256"] == second
