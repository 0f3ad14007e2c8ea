"""Kinds of fields that GQA's records have beside texts, lists and objects."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from sys import intern

from vlbench.core.errors import DataError
from vlbench.data.json.document import list_at
from vlbench.data.json.lines import Fields


def strings(fields: Fields, key: str, where: str) -> list[str]:
    """The list of strings called `key`; `where` says in errors which file and entry is meant.

    Raises:
        DataError: it is missing or something else.
    """
    return all_strings(list_at(fields, key, where), key, where)


def all_strings(values: Sequence[object], key: str, where: str) -> list[str]:
    """The values, each a string, or a DataError; equal strings become one, as the same few thousand come all over."""
    found = [intern(value) for value in values if isinstance(value, str)]
    if len(found) < len(values):
        raise _unexpected(values, key, "strings only", where)
    return found


def flag(fields: Fields, key: str, where: str) -> bool:
    """The truth value called `key`.

    Raises:
        DataError: it is missing or something else.
    """
    value = fields.get(key)
    if not isinstance(value, bool):
        raise _unexpected(value, key, "true or false", where)
    return value


def number(fields: Fields, key: str, where: str) -> float:
    """The number called `key`.

    Raises:
        DataError: it is missing or something else; true and false are no numbers.
    """
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unexpected(value, key, "a number", where)
    return float(value)


def _unexpected(value: object, key: str, expectation: str, where: str) -> DataError:
    found = "missing or null" if value is None else reprlib.repr(value)
    return DataError(f"{where}: {key!r} is {found} where {expectation} is expected: mend the file or fetch it again")
