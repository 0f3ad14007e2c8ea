"""Download a file over HTTP: resume an interrupted download, verify the checksums, then rename it."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from vlbench import __version__
from vlbench.core.errors import DataError
from vlbench.data.cache.folder import atomic_write

_CHUNK = 1 << 20
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that are temporary."""
_MARGIN = 64 << 20
"""Bytes to keep free on the disk."""
_LONGEST_WAIT = 120.0
_HEAD = 1 << 16
"""Bytes at the beginning of a file that tell a web page from data."""
_PAGES = (".html", ".htm", ".xhtml", ".xml", ".svg")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Patience:
    """When to retry and to give up. timeout: seconds without a byte. tries: in a row without progress. wait: sleeps."""

    timeout: float = 30.0
    tries: int = 6
    wait: Callable[[float], None] = time.sleep


class _TemporaryError(Exception):
    """A temporary error, to be retried. seconds: how long the server asks to wait."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


def download(
    url: str,
    target: Path,
    checksums: Mapping[str, str],
    progress: Progress,
    patience: Patience | None = None,
    note: Path | None = None,
) -> None:
    """Download `url` to `target`, resuming from `target.part` if an earlier attempt left one.

    It resumes only if the server still has the same file (by its ETag or date); otherwise it starts over. The size and
    the checksums are those of the file on the disk, which is then renamed. checksums: by algorithm of hashlib; a file
    with another checksum is deleted. progress: called with the bytes received and the bytes in total (those received if
    the server does not say). note: a file that keeps the hash of the first download; without checksums, a later
    download must have the same. Only one process may download to a target at a time.

    Raises DataError if the server rejects the request, has an invalid certificate, keeps failing, sends a web page or
    another file, or redirects to an insecure address, or if the disk is full.
    """
    patience, part, failures = patience or Patience(), _Part(target), 0
    try:
        most = part.size
        while True:
            try:
                _receive(url, part, progress, patience.timeout)
                break
            except _TemporaryError as error:
                # A restart is no progress: a server that announces more than it sends would be asked for ever.
                failures = 1 if part.size > most else failures + 1
                most = max(most, part.size)
                if failures >= patience.tries:
                    raise DataError(
                        f"{url} failed {failures} times in a row ({error}): {part.size:,} bytes are kept, "
                        f"run the same command later to resume"
                    ) from None
                patience.wait(min(error.seconds or 2.0**failures, _LONGEST_WAIT))
        part.finish(url, checksums, note)
    except OSError as error:
        raise DataError(
            f"cannot write {part.path} ({error.strerror}): free some space or give another --data-root"
        ) from None


def partial_files(target: Path) -> tuple[Path, Path]:
    """The file that is being received for `target`, and the file that says which one of the server it is."""
    return target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.json")


class _Part:
    """The partial file and which file of the server it belongs to.

    validator: an ETag or a date that identifies that file; empty if the server gives none. total: its bytes.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path, self.about = partial_files(target)
        self.validator, self.total = "", 0
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            known = json.loads(self.about.read_text(encoding="utf8"))
            self.validator, self.total = str(known["validator"]), int(known["total"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # unknown origin: the download starts over

    @property
    def size(self) -> int:
        """Bytes received so far."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def restart(self, validator: str, total: int) -> None:
        """Discard the bytes received."""
        self.validator, self.total = validator, total
        self.path.write_bytes(b"")
        self.about.write_text(json.dumps({"validator": validator, "total": total}), encoding="utf8")

    def finish(self, url: str, checksums: Mapping[str, str], note: Path | None) -> None:
        """Verify that the file is data and has the checksums, keep its hash, and rename it to its target."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
            head = file.read(_HEAD)
        if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<") and not _is_page_name(self.target.name):
            self.path.unlink()
            raise _web_page(url, self.target, head)
        for algorithm, expected in checksums.items():
            if (digest := self.digest(algorithm)) != expected:
                self.path.unlink()
                raise DataError(
                    f"{url} has {algorithm} {digest} where {expected} is expected, and was deleted: fetch it again, "
                    f"or check whether its owners have replaced it"
                )
        if note is not None:
            digest, first = self.digest("sha256"), _first_sha256(note)
            if first and digest != first and not checksums:
                self.path.unlink()
                raise DataError(
                    f"{url} is not the file of its first download any more (sha256 {digest} where {note} has {first}), "
                    f"and was deleted: scores on the two files may differ; keep the old file, or delete {note} and "
                    f"fetch again to accept the new one"
                )
            if digest != first:
                atomic_write(note, json.dumps({"url": url, "sha256": digest, "bytes": self.size}) + "\n")
        self.path.replace(self.target)
        self.about.unlink(missing_ok=True)

    def digest(self, algorithm: str) -> str:
        """The hash of what is on the disk."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()


def _first_sha256(note: Path) -> str:
    """The hash that a note keeps; empty if there is no readable note."""
    try:
        return str(json.loads(note.read_text(encoding="utf8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects from http to http or https, and from https to https only."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("https", req.type):
            raise DataError(
                f"{req.full_url} redirects to {newurl}, which is not allowed because anybody on the network could "
                f"change the file: check on the task's homepage where it is now"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _receive(url: str, part: _Part, progress: Progress, timeout: float) -> None:
    """Receive the missing bytes. Raises _TemporaryError if a retry may help, else DataError."""
    have = part.size if part.validator else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": f"vlbench/{__version__}"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": part.validator}
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=timeout) as response:
            if response.headers.get_content_type() == "text/html" and not _is_page_name(part.target.name):
                raise _web_page(url, part.target, response.read(_HEAD))
            if not (have and _resumes(response, part, have)):
                have = 0
                part.restart(_validator(response), _announced(response))
            _check_space(part, have)
            with part.path.open("ab") as file:
                for chunk in _chunks(response):
                    file.write(chunk)
                    have += len(chunk)
                    progress(have, part.total or have)
    except urllib.error.HTTPError as error:
        raise _rejected(url, error, part) from None
    except urllib.error.URLError as error:
        raise _unreachable(url, error.reason) from None
    except http.client.HTTPException as error:
        raise _TemporaryError(type(error).__name__) from None
    except (TimeoutError, ConnectionError) as error:
        raise _TemporaryError(str(error) or type(error).__name__) from None
    if part.total and part.size != part.total:
        received = part.size
        if received > part.total:
            part.restart("", 0)
        raise _TemporaryError(f"{received:,} of {part.total:,} bytes were received")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The content as it arrives, so that a stall loses nothing; an error of the network is a _TemporaryError."""
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except OSError as error:  # not to be taken for an error of the disk
            raise _TemporaryError(str(error) or type(error).__name__) from None
        if not chunk:
            return
        yield chunk


def _announced(response: http.client.HTTPResponse) -> int:
    """The bytes of the whole file according to the server, 0 if it does not say."""
    length = str(response.headers.get("Content-Length", ""))
    return int(length) if length.isascii() and length.isdigit() else 0


def _unreachable(url: str, reason: object) -> Exception:
    if isinstance(reason, socket.gaierror):
        return DataError(f"{url} cannot be reached ({reason.strerror}): check the network")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DataError(
            f"the certificate of {urlsplit(url).netloc} is not valid ({reason.verify_message}), so nothing was "
            f"received: check this machine's clock, or set SSL_CERT_FILE to the certificates of your network's proxy"
        )
    return _TemporaryError(str(reason))


def _is_page_name(name: str) -> bool:
    return name.lower().endswith(_PAGES)


def _web_page(url: str, target: Path, head: bytes) -> DataError:
    """The error for a page that is received instead of the file, such as a form to log in."""
    login = any(word in head.lower() for word in (b'type="password"', b"log in", b"login", b"sign in", b"signin"))
    page = "a page that asks for a login" if login else "a web page"
    return DataError(
        f"{url} answers with {page} instead of {target.name}: open it in a browser, and put the file into "
        f"{target.parent} by hand"
    )


def _resumes(response: http.client.HTTPResponse, part: _Part, have: int) -> bool:
    """Whether the response continues the partial file."""
    begins = str(response.headers.get("Content-Range", "")).startswith(f"bytes {have}-")
    return response.status == 206 and begins and _validator(response) in ("", part.validator)


def _validator(response: http.client.HTTPResponse) -> str:
    """A strong ETag, else the date; both are valid in `If-Range` (RFC 9110, section 13.1.5)."""
    tag = str(response.headers.get("ETag", ""))
    return tag if tag and not tag.startswith("W/") else str(response.headers.get("Last-Modified", ""))


def _rejected(url: str, error: urllib.error.HTTPError, part: _Part) -> Exception:
    if error.code == 416:  # the part is longer than the file is now
        part.restart("", 0)
        return _TemporaryError("the file has become shorter")
    if error.code in _BUSY:
        after = error.headers.get("Retry-After", "")
        return _TemporaryError(f"status {error.code}", float(after) if after.isdigit() else None)
    return DataError(
        f"{url} answers {error.code} ({error.reason}): check on the task's homepage whether it has moved, and put "
        f"the file there by hand"
    )


def _check_space(part: _Part, have: int) -> None:
    free = shutil.disk_usage(part.path.parent).free
    if part.total - have + _MARGIN > free:
        raise DataError(
            f"{part.target.name} needs {part.total - have:,} bytes more and {part.target.parent} has {free:,} left: "
            f"free some space or give another --data-root"
        )
