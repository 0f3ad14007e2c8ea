"""One JSON document from elsewhere, read so that every fault names its file."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Sequence
from pathlib import Path

from vlbench.core.errors import DataError
from vlbench.data.json.lines import GZIP, Fields, unique


def read_json(path: Path, unique_keys: bool = False) -> object:
    """The value that a whole file of JSON holds; a byte order mark is tolerated.

    unique_keys: a key that comes twice in one object is an error; else the last one counts, which is quicker to read.

    Raises:
        DataError: the file cannot be read, is compressed, is not UTF-8, or is not JSON (NaN and Infinity are none).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}): give a readable file") from None
    if content.startswith(GZIP):
        raise DataError(f"{path} is compressed by gzip where JSON is expected: unpack it with gunzip")
    try:
        pairs = unique if unique_keys else None
        value: object = json.loads(content.decode("utf-8-sig"), parse_constant=_refuse, object_pairs_hook=pairs)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}): save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}): mend the file or fetch it again") from None
    return value


def as_object(value: object, where: str) -> Fields:
    """The value as a JSON object; `where` says in errors which file and entry is meant.

    Raises:
        DataError: it is something else.
    """
    if not isinstance(value, dict):
        raise _unexpected(f"{_short(value)} is found", where, "a JSON object")
    return value


def as_list(value: object, where: str) -> Sequence[object]:
    """The value as a JSON list.

    Raises:
        DataError: it is something else.
    """
    if not isinstance(value, list):
        raise _unexpected(f"{_short(value)} is found", where, "a JSON list")
    return value


def object_at(fields: Fields, key: str, where: str) -> Fields:
    """The object called `key`.

    Raises:
        DataError: it is missing or something else.
    """
    value = fields.get(key)
    if not isinstance(value, dict):
        raise _unexpected(_found(fields, key), where, "a JSON object")
    return value


def list_at(fields: Fields, key: str, where: str) -> Sequence[object]:
    """The list called `key`.

    Raises:
        DataError: it is missing or something else.
    """
    value = fields.get(key)
    if not isinstance(value, list):
        raise _unexpected(_found(fields, key), where, "a JSON list")
    return value


def whole_number(fields: Fields, key: str, where: str) -> int:
    """The whole number called `key`, 0 or more.

    Raises:
        DataError: it is missing or something else; true and false are no numbers.
    """
    value = fields.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _unexpected(_found(fields, key), where, "a whole number")
    return value


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON number")


def _found(fields: Fields, key: str) -> str:
    return f"{key!r} is {_short(fields[key])}" if key in fields else f"{key!r} is missing"


def _short(value: object) -> str:
    """An answer may be 100 kB long; a sentence may not."""
    return reprlib.repr(value)


def _unexpected(found: str, where: str, expectation: str) -> DataError:
    return DataError(f"{where}: {found} where {expectation} is expected: mend the file or fetch it again")
