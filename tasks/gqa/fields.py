"""Readers for the kinds of fields in GQA's records that `vlbench.data.json` lacks; each raises DataError."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from sys import intern

from vlbench.data.json.document import list_at
from vlbench.data.json.lines import Fields, unexpected, unexpected_field


def strings(fields: Fields, key: str, where: str) -> list[str]:
    """The list of strings named `key`; `where` names the file and entry in error messages."""
    return all_strings(list_at(fields, key, where), key, where)


def all_strings(values: Sequence[object], key: str, where: str) -> list[str]:
    """The values, all of which must be strings; interned because the same few thousand strings recur."""
    texts = [intern(value) for value in values if isinstance(value, str)]
    if len(texts) < len(values):
        raise unexpected(f"{key!r} is {reprlib.repr(values)}", where, "strings only")
    return texts


def flag(fields: Fields, key: str, where: str) -> bool:
    """The boolean named `key`."""
    value = fields.get(key)
    if not isinstance(value, bool):
        raise unexpected_field(fields, key, where, "true or false")
    return value


def number(fields: Fields, key: str, where: str) -> float:
    """The number named `key`; true and false are not numbers."""
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise unexpected_field(fields, key, where, "a number")
    return float(value)
