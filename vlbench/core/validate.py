"""Parse untrusted mappings into frozen models; report all faults at once, naming near misses."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from vlbench.core.errors import LONGEST, VlbenchError

MOST = 20
"""Faults that one sentence names."""


class Frozen(BaseModel):
    """The base of every card, spec and record: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], values: Mapping[str, object], where: str) -> Model:
    """Build `model` from `values`.

    Raises:
        VlbenchError: with every fault (of many, the first ones) in one sentence, `where` saying which file or flags are
            meant.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = [_describe(model, fault) for fault in error.errors(include_url=False)]
        rest = [f"and {len(faults) - MOST} more"] if len(faults) > MOST else []
        raise VlbenchError(f"{where}: {'; '.join(faults[:MOST] + rest)}") from None


def _describe(model: type[BaseModel], fault: ErrorDetails) -> str:
    path = [str(part) for part in fault["loc"]]
    name = ".".join(path) or "value"
    if fault["type"] == "missing":
        return f"{name[:LONGEST]} is missing"
    if fault["type"] != "extra_forbidden":
        return f"{name[:LONGEST]} is {brief(fault['input'])}: {fault['msg'].removeprefix('Value error, ')}"
    near = difflib.get_close_matches(path[-1], _known_keys(model, path[:-1]), n=1)
    return f"unknown key {brief(name)}" + (f", did you mean {near[0]!r}?" if near else "")


def brief(value: object) -> str:
    """A value from elsewhere in a few words: it may be a whole file long, or name itself a thousand times."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxdict = 2, LONGEST, LONGEST, 3
    try:
        return short.repr(value)
    except ValueError:  # a number of more digits than Python writes out
        return "an enormous number"


def _known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys known at `path` below `model`, as far as plain nested models go."""
    for part in path:
        inner = model.model_fields.get(part)
        annotation = inner.annotation if inner else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
