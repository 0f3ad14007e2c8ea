"""Lines of JSON from elsewhere, read so that every fault names its file and line."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vlbench.core.errors import DataError

Fields = Mapping[str, object]
GZIP = b"\x1f\x8b"


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number (from 1) and text of each line, trimmed; blank lines are passed over.

    A byte order mark and CRLF line ends are tolerated.

    Raises:
        DataError: the file cannot be read, is compressed, or a line is not UTF-8.
    """
    try:
        with path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                if number == 1 and raw.startswith(GZIP):
                    raise DataError(f"{path} is compressed by gzip where lines of text are expected: unpack it")
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if line:
                    yield number, line
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number}: not UTF-8 ({error.reason}): save the file as UTF-8") from None
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}): give a readable file") from None


def read_json_lines(path: Path, unique_keys: bool = False) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield number (from 1) and object of each line that is not blank.

    unique_keys: a key that comes twice in one object is an error; else the last one counts, which is quicker to read.

    Raises:
        DataError: as `read_lines`, or a line is not a JSON object.
    """
    for number, line in read_lines(path):
        yield number, _parse(line, f"{path}, line {number}", unique_keys)


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON from its keys and values.

    Raises:
        ValueError: a key comes twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise ValueError(f"the key {reprlib.repr(twice)} comes twice in one object")
    return found


def _parse(line: str, where: str, unique_keys: bool) -> dict[str, object]:
    try:
        fields: object = json.loads(line, object_pairs_hook=unique if unique_keys else None)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}): mend the line or fetch the file again") from None
    if not isinstance(fields, dict):
        raise DataError(f"{where}: {line[:40]!r} is not a JSON object: expected one object in braces per line")
    return fields


def text(fields: Fields, key: str, where: str) -> str:
    """The string called `key`; `where` says in errors which file and line is meant.

    Raises:
        DataError: it is missing, no string, or holds half a character, which JSON can spell but no text has.
    """
    value = fields.get(key)
    if not isinstance(value, str):
        raise _unexpected(fields, key, where, "a string")
    if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
        raise _unexpected(fields, key, where, "a string of whole characters")
    return value


def one_of(fields: Fields, key: str, allowed: Sequence[str], where: str) -> str:
    """The member of `allowed` that the string called `key` equals, whatever its case.

    Raises:
        DataError: it is missing, no string, or none of them.
    """
    value = fields.get(key)
    for known in allowed:
        if isinstance(value, str) and value.lower() == known.lower():
            return known
    raise _unexpected(fields, key, where, " or ".join(f'"{known}"' for known in allowed))


def folder(fields: Fields, key: str, where: str) -> str:
    """The string or whole number called `key`, as the name of one folder.

    Raises:
        DataError: it is missing, or could lead out of the folder it is looked up in.
    """
    value = fields.get(key)
    name = str(value) if isinstance(value, (str, int)) else ""
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise _unexpected(fields, key, where, "the name of one folder")
    return name


def _unexpected(fields: Fields, key: str, where: str, expectation: str) -> DataError:
    found = f"is {reprlib.repr(fields[key])}" if key in fields else "is missing"
    return DataError(f"{where}: {key!r} {found} where {expectation} is expected: mend the line or fetch the file again")
