"""Names of one or several splits, as flags, YAML, cards and records write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field

NONE = "none"
"""The value of a spec in place of a split where no split is read."""


def split_tuple(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """The names as a tuple: `"train,nominival"` as `("train", "nominival")`; empty for None and `none`."""
    if value is None or value == NONE:
        return ()
    return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else tuple(value)


def joined(value: str | Sequence[str] | None) -> str:
    """The names as in tables and labels: `train+nominival`, or `none` without a split."""
    return "+".join(split_tuple(value)) or NONE


def _checked(value: object) -> tuple[str, ...]:
    """The names of splits in a value; raises ValueError for anything but distinct names, or `none` by itself."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError("expected the name of a split, or several with commas or as a list: train,val")
    names = tuple(name.strip() for text in texts for name in text.split(","))
    if not names or not all(names):
        raise ValueError("expected names of splits with commas between them, and one is empty")
    if len(set(names)) < len(names) or (NONE in names and len(names) > 1):
        raise ValueError("expected each split once, and none by itself alone")
    return names


def _one_or_several(value: object) -> str | tuple[str, ...]:
    """A single name as a text, as in records of vlbench 0.1."""
    names = _checked(value)
    return names[0] if len(names) == 1 else names


SplitTuple = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_checked)]
"""One or several splits, as a tuple."""
Splits = Annotated[str | Annotated[tuple[str, ...], Field(min_length=2)], BeforeValidator(_one_or_several)]
"""One split as a text, or several as a tuple; `"train,val"` is read as several."""
