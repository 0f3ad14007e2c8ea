"""Read whole JSON files and the fields of their objects; every error names the file."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Sequence
from pathlib import Path

from vlbench.core.errors import DataError
from vlbench.data.cache.folder import cannot_read
from vlbench.data.json.lines import (
    Fields,
    not_json,
    not_utf8,
    reject_constant,
    reject_gzip,
    unexpected,
    unexpected_field,
    unique,
)

LARGEST = 2 << 30
"""Bytes of a whole document; the largest official ones have 0.7 GiB."""
LARGEST_RECORD = 64 << 20
"""Bytes of a record of vlbench, which has less than 1 MiB."""


def read_json(path: Path, unique_keys: bool = False) -> object:
    """Return the value that a JSON file holds; a byte order mark is accepted.

    unique_keys: a key that occurs twice in one object is an error; by default the last one counts, which is faster.
    Raises DataError if the file cannot be read, is compressed, larger than 2 GiB, not UTF-8, or not JSON
    (NaN and Infinity are not).
    """
    try:
        check_size(path)
        content = path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from None
    reject_gzip(content, path, "JSON is")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(str(path), f"{error.reason} at byte {error.start}") from None
    try:
        pairs = unique if unique_keys else None
        value: object = json.loads(text, parse_constant=reject_constant, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise not_json(str(path), str(error)) from None
    return value


def check_size(path: Path, largest: int = LARGEST) -> None:
    """Check a file before it is read as a whole. Raises DataError: it is larger. Raises OSError: it does not exist."""
    size = path.stat().st_size
    if size > largest:
        raise DataError(
            f"{path} has {size:,} bytes where at most {largest:,} are read: give the right file, or split it"
        )


def as_object(value: object, where: str) -> Fields:
    """Return the value as a JSON object; `where` names the file and entry in errors.

    Raises DataError if it is something else.
    """
    if not isinstance(value, dict):
        raise unexpected(f"{reprlib.repr(value)} is found", where, "a JSON object")
    return value


def as_list(value: object, where: str) -> Sequence[object]:
    """Return the value as a JSON list. Raises DataError if it is something else."""
    if not isinstance(value, list):
        raise unexpected(f"{reprlib.repr(value)} is found", where, "a JSON list")
    return value


def object_at(fields: Fields, key: str, where: str) -> Fields:
    """Return the object called `key`. Raises DataError if it is missing or something else."""
    value = fields.get(key)
    if not isinstance(value, dict):
        raise unexpected_field(fields, key, where, "a JSON object")
    return value


def list_at(fields: Fields, key: str, where: str) -> Sequence[object]:
    """Return the list called `key`. Raises DataError if it is missing or something else."""
    value = fields.get(key)
    if not isinstance(value, list):
        raise unexpected_field(fields, key, where, "a JSON list")
    return value


def whole_number(fields: Fields, key: str, where: str) -> int:
    """Return the integer called `key`, 0 or larger.

    Raises DataError if it is missing or something else; true and false are not numbers.
    """
    value = fields.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise unexpected_field(fields, key, where, "a whole number")
    return value
