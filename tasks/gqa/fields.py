"""Readers for the kinds of fields in GQA's records that `vlbench.data.json` lacks."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from sys import intern

from vlbench.core.errors import DataError
from vlbench.data.json.document import list_at
from vlbench.data.json.lines import Fields


def strings(fields: Fields, key: str, where: str) -> list[str]:
    """The list of strings named `key`; `where` names the file and entry in error messages.

    Raises DataError if the value is missing or has another type.
    """
    return all_strings(list_at(fields, key, where), key, where)


def all_strings(values: Sequence[object], key: str, where: str) -> list[str]:
    """The values, interned because the same few thousand strings recur; DataError if one of them is not a string."""
    texts = [intern(value) for value in values if isinstance(value, str)]
    if len(texts) < len(values):
        raise _unexpected(values, key, "strings only", where)
    return texts


def flag(fields: Fields, key: str, where: str) -> bool:
    """The boolean named `key`. Raises DataError if the value is missing or has another type."""
    value = fields.get(key)
    if not isinstance(value, bool):
        raise _unexpected(value, key, "true or false", where)
    return value


def number(fields: Fields, key: str, where: str) -> float:
    """The number named `key`.

    Raises DataError if the value is missing or has another type; true and false are not numbers.
    """
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unexpected(value, key, "a number", where)
    return float(value)


def _unexpected(value: object, key: str, expectation: str, where: str) -> DataError:
    found = "missing or null" if value is None else reprlib.repr(value)
    return DataError(f"{where}: {key!r} is {found} where {expectation} is expected: mend the file or fetch it again")
