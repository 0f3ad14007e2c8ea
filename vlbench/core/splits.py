"""Names of one or several splits: how flags, YAML, cards and records spell them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field

NONE = "none"
"""What a spec has in place of a split where nothing is read."""


def split_tuple(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """The names as a tuple: `"train,nominival"` as `("train", "nominival")`; empty for None and `none`."""
    if value is None or value == NONE:
        return ()
    return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else tuple(value)


def joined(value: str | Sequence[str] | None) -> str:
    """The names as tables and labels spell them: `train+nominival`; `none` where there is no split."""
    return "+".join(split_tuple(value)) or NONE


def _checked(value: object) -> tuple[str, ...]:
    """The names of splits in a value from elsewhere.

    Raises:
        ValueError: it is no text or list of texts, names nothing, or a split twice, or `none` beside another.
    """
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
    """One name as a text, as records of vlbench 0.1 have it."""
    names = _checked(value)
    return names[0] if len(names) == 1 else names


SplitTuple = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_checked)]
"""One or several splits, as a tuple."""
Splits = Annotated[str | Annotated[tuple[str, ...], Field(min_length=2)], BeforeValidator(_one_or_several)]
"""One split as a text, or several as a tuple; `"train,val"` is read as several."""
