"""The seal of a finished record: hashes of its content and of the result files beside it.

A seal detects edits and damage, not forgery: whoever edits a record can also compute a new seal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from vlbench.core.errors import DataError
from vlbench.data.json.document import LARGEST_RECORD, check_size

_SEAL, _FILES = "seal", "files"


def seal_of(values: Mapping[str, object]) -> str:
    """The SHA-256 of a record's JSON values, without the seal itself; it does not depend on the order of the keys."""
    content = {name: value for name, value in values.items() if name != _SEAL}
    text = json.dumps(content, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def hashes_of(files: Iterable[Path]) -> dict[str, str]:
    """Name -> SHA-256 of those of the files that exist. Raises DataError: one cannot be read."""
    return {file.name: _sha256(file) for file in files if file.is_file()}


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror}): make it readable or rerun with --no-resume"
        ) from None


def is_intact(values: Mapping[str, object]) -> bool:
    """Whether a record's JSON values fit their seal; true for records without one, of versions before 0.2.0."""
    seal = values.get(_SEAL)
    return not seal or seal == seal_of(values)


def check_file(path: Path, content: bytes) -> None:
    """Check the content of a result file against the record beside it, where there is one that names the file.

    Raises DataError: the file is not the one that the record was made with, or the record is far too large.
    """
    expected = _recorded_hash(path)
    if expected and hashlib.sha256(content).hexdigest() != expected:
        raise DataError(
            f"{path} is not the file that the run wrote, by its hash in run.json: it was edited or damaged, so restore "
            f"it or rerun with --no-resume"
        )


def _recorded_hash(path: Path) -> str:
    """The hash of the file in the record beside it; empty without one."""
    record = path.with_name("run.json")
    try:
        check_size(record, LARGEST_RECORD)
        values = json.loads(record.read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    files = values.get(_FILES) if isinstance(values, dict) else None
    expected = files.get(path.name) if isinstance(files, dict) else None
    return expected if isinstance(expected, str) else ""
