"""Download a file over HTTP: resume an interrupted download, verify the checksums, then rename it."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vlbench import __version__
from vlbench.core.errors import DataError

_CHUNK = 1 << 20
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that are temporary."""
_MARGIN = 64 << 20
"""Bytes to keep free on the disk."""
_LONGEST_WAIT = 120.0
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
    url: str, target: Path, checksums: Mapping[str, str], progress: Progress, patience: Patience | None = None
) -> None:
    """Download `url` to `target`, resuming from `target.part` if an earlier attempt left one.

    It resumes only if the server still has the same file (by its ETag or date); otherwise it starts over. checksums: by
    algorithm of hashlib; a file with another checksum is deleted. progress: called with the bytes received and the
    bytes in total (those received if the server does not say). Raises DataError if the server rejects the request,
    keeps failing, or sends another file, or if the disk is full.
    """
    patience, part, failures = patience or Patience(), _Part(target), 0
    try:
        while True:
            before = part.size
            try:
                _receive(url, part, progress, patience.timeout)
                break
            except _TemporaryError as error:
                failures = 1 if part.size > before else failures + 1
                if failures >= patience.tries:
                    raise DataError(
                        f"{url} failed {failures} times in a row ({error}): {part.size:,} bytes are kept, "
                        f"run the same command later to resume"
                    ) from None
                patience.wait(min(error.seconds or 2.0**failures, _LONGEST_WAIT))
        part.finish(url, checksums)
    except OSError as error:
        raise DataError(
            f"cannot write {part.path} ({error.strerror}): free some space or give another --data-root"
        ) from None


class _Part:
    """The partial file and which file of the server it belongs to.

    validator: an ETag or a date that identifies that file; empty if the server gives none. total: its bytes.
    """

    def __init__(self, target: Path) -> None:
        self.target, self.path = target, target.with_name(f"{target.name}.part")
        self.about = target.with_name(f"{target.name}.part.json")
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

    def finish(self, url: str, checksums: Mapping[str, str]) -> None:
        """Verify the checksums and rename the file to its target."""
        for algorithm, expected in checksums.items():
            with self.path.open("rb") as file:
                digest = hashlib.file_digest(file, algorithm).hexdigest()
            if digest != expected:
                self.path.unlink()
                raise DataError(
                    f"{url} has {algorithm} {digest} where {expected} is expected, and was deleted: fetch it again, "
                    f"or check whether its owners have replaced it"
                )
        self.path.replace(self.target)
        self.about.unlink(missing_ok=True)


def _receive(url: str, part: _Part, progress: Progress, timeout: float) -> None:
    """Receive the missing bytes. Raises _TemporaryError if a retry may help, else DataError."""
    have = part.size if part.validator else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": f"vlbench/{__version__}"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": part.validator}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as response:
            if not (have and _resumes(response, part, have)):
                have = 0
                part.restart(_validator(response), int(response.headers.get("Content-Length") or 0))
            _check_space(part, have)
            with part.path.open("ab") as file:
                while chunk := response.read1(_CHUNK):  # returns what has arrived, so a stall loses nothing
                    file.write(chunk)
                    have += len(chunk)
                    progress(have, part.total or have)
    except urllib.error.HTTPError as error:
        raise _rejected(url, error, part) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, socket.gaierror):
            raise DataError(f"{url} cannot be reached ({error.reason.strerror}): check the network") from None
        raise _TemporaryError(str(error.reason)) from None
    except http.client.HTTPException as error:
        raise _TemporaryError(type(error).__name__) from None
    except (TimeoutError, ConnectionError) as error:
        raise _TemporaryError(str(error) or type(error).__name__) from None
    if part.total and have != part.total:
        if have > part.total:
            part.restart("", 0)
        raise _TemporaryError(f"{have:,} of {part.total:,} bytes were received")


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
