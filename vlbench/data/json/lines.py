"""Read JSON Lines files and the fields of JSON objects; every error names the file and the line."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from vlbench.core.errors import DataError
from vlbench.data.cache.folder import cannot_read

Fields = Mapping[str, object]
GZIP = b"\x1f\x8b"
"""The first two bytes of a gzip file."""
LONGEST_LINE = 64 << 20
"""Bytes; the longest lines of official files, 100 regions with 2,048 features in base64, have 1.1 MiB."""


def bounded_lines(path: Path, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the number (from 1) and the bytes of each line. Raises DataError: a line has more than 64 MiB; no more of
    it is read.
    """
    for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE + 1), b""), start=1):
        if len(line) > LONGEST_LINE:
            raise DataError(f"{path}, line {number} has more than {LONGEST_LINE:,} bytes: give a file with line ends")
        yield number, line


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number (from 1) and the stripped text of each line that is not blank.

    A byte order mark and CRLF line ends are accepted. Raises DataError if the file cannot be read, is compressed, or a
    line is not UTF-8 or larger than 64 MiB.
    """
    try:
        with path.open("rb") as stream:
            for number, raw in bounded_lines(path, stream):
                if number == 1:
                    reject_gzip(raw, path, "lines of text are")
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if line:
                    yield number, line
    except UnicodeDecodeError as error:
        raise not_utf8(f"{path}, line {number}", error.reason) from None
    except OSError as error:
        raise cannot_read(path, error) from None


def read_json_lines(path: Path, unique_keys: bool = False) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield the number (from 1) and the JSON object of each line that is not blank.

    unique_keys: a key that occurs twice in one object is an error; by default the last one counts, which is faster.
    Raises DataError as `read_lines` does, or if a line is not a JSON object (NaN and Infinity are
    not JSON).
    """
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        try:
            pairs = unique if unique_keys else None
            fields: object = json.loads(line, parse_constant=reject_constant, object_pairs_hook=pairs)
        except (ValueError, RecursionError) as error:
            raise not_json(where, str(error)) from None
        if not isinstance(fields, dict):
            raise DataError(f"{where}: {line[:40]!r} is not a JSON object: expected one object in braces per line")
        yield number, fields


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An `object_pairs_hook` for `json.loads`. Raises ValueError if a key occurs twice."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        repeated = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise ValueError(f"the key {reprlib.repr(repeated)} comes twice in one object")
    return fields


def text(fields: Fields, key: str, where: str) -> str:
    """Return the string called `key`; `where` names the file and line in errors.

    Raises DataError if it is missing, not a string, or contains a lone surrogate, which JSON allows and UTF-8 does not.
    """
    value = fields.get(key)
    if not isinstance(value, str):
        raise unexpected_field(fields, key, where, "a string")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise unexpected_field(fields, key, where, "a string of whole characters")
    return value


def one_of(fields: Fields, key: str, allowed: Sequence[str], where: str) -> str:
    """Return the member of `allowed` that equals the string called `key`, ignoring case.

    Raises DataError if it is missing, not a string, or none of them.
    """
    value = fields.get(key)
    for name in allowed:
        if isinstance(value, str) and value.lower() == name.lower():
            return name
    raise unexpected_field(fields, key, where, " or ".join(f'"{name}"' for name in allowed))


def folder(fields: Fields, key: str, where: str) -> str:
    """Return the string or integer called `key` as the name of one folder.

    Raises DataError if it is missing, or would lead out of the folder that it is looked up in.
    """
    value = fields.get(key)
    name = str(value) if isinstance(value, (str, int)) else ""
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise unexpected_field(fields, key, where, "the name of one folder")
    return name


def reject_gzip(content: bytes, path: Path, expected: str) -> None:
    """Raise DataError if a file starts as gzip files do; `expected` with its verb, as in "JSON is"."""
    if content.startswith(GZIP):
        raise DataError(f"{path} is compressed by gzip where {expected} expected: unpack it with gunzip")


def reject_constant(constant: str) -> object:
    """Raise ValueError for NaN and Infinity, which are not JSON; a `parse_constant` for `json.loads`."""
    raise ValueError(f"{constant} is not a JSON number")


def not_utf8(where: str, reason: str) -> DataError:
    """The error for bytes that are not UTF-8."""
    return DataError(f"{where}: not UTF-8 ({reason}): save the file as UTF-8")


def not_json(where: str, reason: str) -> DataError:
    """The error for text that is not JSON."""
    return DataError(f"{where}: not JSON ({reason}): correct the file or fetch it again")


def unexpected_field(fields: Fields, key: str, where: str, expected: str) -> DataError:
    """The error for a field that is missing or has another value than `expected`."""
    fault = f"is {reprlib.repr(fields[key])}" if key in fields else "is missing"
    return unexpected(f"{key!r} {fault}", where, expected)


def unexpected(fault: str, where: str, expected: str) -> DataError:
    """The error for `fault` where `expected` should be."""
    return DataError(f"{where}: {fault} where {expected} is expected: correct the file or fetch it again")
