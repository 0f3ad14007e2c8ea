"""Parse untrusted mappings into frozen models; report all faults at once, with near misses."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from vlbench.core.errors import LONGEST, VlbenchError

MOST = 20
"""Number of faults that one sentence names."""

UNTRUSTED = {"untrusted": True}
"""The context of values that are parsed, in contrast to those that our own code builds a model from."""


class Frozen(BaseModel):
    """The base of all cards, specs and records: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], values: Mapping[str, object], where: str) -> Model:
    """Build `model` from `values`; raises VlbenchError with all faults (of many, the first ones) after `where`."""
    try:
        return model.model_validate(values, context=UNTRUSTED)
    except ValidationError as error:
        faults = [_describe(model, fault) for fault in error.errors(include_url=False)]
        rest = [f"and {len(faults) - MOST} more"] if len(faults) > MOST else []
        raise VlbenchError(f"{where}: {'; '.join(faults[:MOST] + rest)}") from None


def _describe(model: type[BaseModel], fault: ErrorDetails) -> str:
    """One fault: the key, its value, and what is expected instead."""
    path = [str(part) for part in fault["loc"]]
    name = ".".join(path) or "value"
    if fault["type"] == "missing":
        return f"{name[:LONGEST]} is missing"
    if fault["type"] != "extra_forbidden":
        return f"{name[:LONGEST]} is {brief(fault['input'])}: {_expectation(fault)}"
    near = _nearest_key(model, path)
    return f"unknown key {brief(name)}" + (f", did you mean {near!r}?" if near else "")


_BOUNDS = {
    "greater_than": ("gt", "above", "larger"),
    "greater_than_equal": ("ge", "of at least", "larger"),
    "less_than": ("lt", "below", "smaller"),
    "less_than_equal": ("le", "of at most", "smaller"),
}
"""By the type of a fault of pydantic: the bound's name in its context, and words for it."""


def _expectation(fault: ErrorDetails) -> str:
    """What is expected, and the remedy where pydantic's own message has none."""
    if fault["type"] in _BOUNDS:
        name, words, remedy = _BOUNDS[fault["type"]]
        bound = fault["ctx"][name]
        shown = int(bound) if float(bound).is_integer() else bound
        return f"expected a number {words} {shown:,}, give a {remedy} one"
    if fault["type"] == "finite_number":
        return "expected a finite number, give one such as 0.5 or 100"
    if fault["type"] == "string_too_short":
        return "expected a name, and it is empty: name one or leave it out"
    message = fault["msg"].removeprefix("Value error, ")
    wanted = message.removeprefix("Input should be ")
    return message if wanted == message else f"expected {wanted}"


def brief(value: object) -> str:
    """A short text for an untrusted value, which may be as long as a file or refer to itself many times."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxdict = 2, LONGEST, LONGEST, 3
    try:
        return short.repr(value)
    except ValueError:  # a number of more digits than Python writes out
        return "an enormous number"


def _nearest_key(model: type[BaseModel], path: Sequence[str]) -> str | None:
    """The known key that an unknown one at `path` probably means: by its name beside it, by its path elsewhere."""
    keys = {key.rpartition(".")[2]: key for key in _all_keys(model)}
    keys |= {key: key for key in _keys_at(model, path[:-1])}
    if near := difflib.get_close_matches(path[-1], keys, n=1):
        return keys[near[0]]
    if (short := initials(path[-1])) in keys:
        return keys[short]
    longer = [name for name in keys if len(path[-1]) > 2 and name.startswith(path[-1])]
    return keys[min(longer, key=len)] if longer else None


def initials(name: str) -> str:
    """The first letters of the words of a name: `lr` for `learning_rate` and for `learning-rate`."""
    return "".join(word[:1] for word in name.replace("-", "_").split("_"))


def _all_keys(model: type[BaseModel]) -> Iterator[str]:
    """The paths of all keys of `model`, those of plain nested models among them, the outermost last."""
    for name, inner in _nested(model).items():
        yield from (f"{name}.{key}" for key in _all_keys(inner))
    yield from model.model_fields


def _keys_at(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys known at `path` below `model`, as far as plain nested models go."""
    for part in path:
        inner = _nested(model).get(part)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _nested(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The fields of `model` that hold a model."""
    annotations = {name: field.annotation for name, field in model.model_fields.items()}
    return {
        name: annotation
        for name, annotation in annotations.items()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel)
    }
