"""One declaration for each option of `vlbench run`, `pretrain` and `profile`.

A field of a spec is declared once, as `name: type = option(default, help, group)`. Flags, `--help`, shell completion,
YAML keys and the JSON schema all follow from that line. This module needs neither typer nor torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, FiniteFloat, model_validator
from pydantic_core import PydanticUndefined

from vlbench.core.errors import VlbenchError, first_five
from vlbench.core.paths import expand_home
from vlbench.core.splits import NONE
from vlbench.core.validate import Frozen, brief

Group = Literal["What to run", "Data", "Training", "Inference", "Measurement", "Machine", "Output"]
"""Headings of `--help`."""
Catalogue = Literal["task", "model"]
"""What names can be completed from."""
MOST = 10**9
"""Upper bound of numbers that have no closer one: above it lies a slip, or an overflow further on."""
Count = Annotated[int, Field(ge=1, le=MOST)]
Amount = Annotated[int, Field(ge=0, le=MOST)]
"""As `Count`, or 0."""
Workers = Annotated[int, Field(ge=0, le=4096)]
Threads = Annotated[int, Field(ge=1, le=4096)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Positive = Annotated[FiniteFloat, Field(gt=0, le=MOST)]
NotNegative = Annotated[FiniteFloat, Field(ge=0, le=MOST)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1)]
UserPath = Annotated[Path, AfterValidator(lambda path: expand_home(path, strict=False))]
"""A path with `~` expanded: records keep paths with it, and `--config` reads them back. It stays where there is no home
folder, so that the records of other users can be read."""
Default = TypeVar("Default")


def names_in(text: str) -> tuple[str, ...]:
    """`"a, b"` as `("a", "b")`; raises ValueError if a name is empty or comes twice."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ValueError("holds an empty name: expected names with commas between them")
    check_distinct(names)
    return names


def check_distinct(names: Sequence[str]) -> None:
    """Raise ValueError if a name comes twice."""
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(f"names {first_five(twice)} more than once: name each once")


def split_text(value: object) -> object:
    """Names in a text with commas as a tuple, `none` as an empty one; any other value as it is."""
    if not isinstance(value, str):
        return value
    return () if value == NONE else names_in(value)


Names = Annotated[tuple[str, ...], BeforeValidator(split_text)]
"""Names as a list, or as a text with commas between them; `none` is an empty list."""


@dataclass(frozen=True)
class Option:
    """How a field of a spec appears on the command line and in YAML.

    group: heading in `--help`; None for a field without a flag. shown: text that `--help` shows for a default that is
    decided later; empty shows the field's own. name: of the flag and the YAML key, where it is not the field's.
    metavar: placeholder of the value. repeated: whether the flag is given once for each value. known: catalogue whose
    names complete the value. value_of: another option and a word; that word as its value sets this field to true.
    formerly: the old name, still read.
    """

    group: Group | None = None
    shown: str = ""
    name: str = ""
    metavar: str = ""
    repeated: bool = False
    known: Catalogue | None = None
    value_of: tuple[str, str] | None = None
    formerly: str = ""

    def __call__(self, schema: dict[str, Any]) -> None:
        """Add nothing to the JSON schema; pydantic calls this where it is `json_schema_extra`."""


def option(
    default: Default,
    description: str,
    group: Group | None = None,
    *,
    shown: str = "",
    name: str = "",
    metavar: str = "",
    repeated: bool = False,
    known: Catalogue | None = None,
    value_of: tuple[str, str] | None = None,
    formerly: str = "",
) -> Default:
    """The declaration of an option; see `Option`. A required one has the default `...` and stands in `Annotated`."""
    extra = Option(group, shown, name, metavar, repeated, known, value_of, formerly)
    field: Default = Field(default=default, description=description, json_schema_extra=extra)
    return field


@dataclass(frozen=True)
class Declared:
    """One declared option of a spec.

    path: of the field, e.g. `("train", "lr")`. name: of the flag (without dashes) and the YAML key. annotation: the
    field's type. default: the field's; None where it is required or decided later.
    """

    path: tuple[str, ...]
    name: str
    annotation: object
    default: object
    required: bool
    help: str
    option: Option


def declared_options(spec: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[Declared]:
    """Every declared option of a spec and of the models nested in it, in the order of the fields."""
    for name, field in spec.model_fields.items():
        annotation, extra = field.annotation, field.json_schema_extra
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from declared_options(annotation, (*above, name))
        elif isinstance(extra, Option):
            default = None if field.default is PydanticUndefined else field.default
            text = field.description or ""
            yield Declared((*above, name), extra.name or name, annotation, default, field.is_required(), text, extra)


@cache
def old_names(spec: type[BaseModel]) -> Mapping[str, str]:
    """From the old name of each renamed option to the name of today."""
    return {known.option.formerly: known.name for known in declared_options(spec) if known.option.formerly}


def _rename(spec: type[BaseModel], values: Mapping[str, object]) -> dict[str, object]:
    """The values under the names of today; raises ValueError if an option is given under its old and its new name."""
    old = old_names(spec)
    for name in old.keys() & values.keys():
        if old[name] in values:
            raise ValueError(f"{name} is the old name of {old[name]}: give {old[name]} alone")
    return {old.get(name, name): value for name, value in values.items()}


class Spec(Frozen):
    """The base of the specs: old names of their fields are read, as records and YAML files have them."""

    @model_validator(mode="before")
    @classmethod
    def _read_old_names(cls, values: object) -> object:
        return _rename(cls, values) if isinstance(values, dict) else values


def normalise(spec: type[BaseModel], values: Mapping[str, object], where: str) -> dict[str, object]:
    """The values of flags, of a YAML file or of `--set`, under the paths of the spec's fields.

    Keys may have `-` for `_`. The name of a flag counts as the path of its field (`lr` as `train.lr`), and an option's
    word as the field that it sets (`batch_size: auto` as `auto_batch: true`). where: the source, for errors.

    Raises:
        VlbenchError: a setting is given twice, under two names.
    """
    try:
        result = _rename(spec, _with_underscores(values))
    except ValueError as error:
        raise VlbenchError(f"{where}: {error}") from None
    known = {option.name: option for option in declared_options(spec)}
    for name, option in known.items():
        if name in result and option.path != (name,):
            _set(result, option.path, result.pop(name), f"{where}: {name}")
    for name, option in known.items():
        if option.option.value_of:
            other, word = option.option.value_of
            *above, last = known[other].path
            holder = result
            for part in above:
                inner = holder.get(part)
                holder = inner if isinstance(inner, dict) else {}
            if holder.get(last) == word:
                del holder[last]
                result[name] = True
    return result


def _with_underscores(values: Mapping[str, object], below: bool = True) -> dict[str, object]:
    """The values, `-` in keys replaced by `_`, those of mappings directly `below` too.

    No deeper: YAML may refer to one mapping so often that a copy of all would not fit into memory.
    """
    return {
        str(key).replace("-", "_"): _with_underscores(value, below=False)
        if below and isinstance(value, Mapping)
        else value
        for key, value in values.items()
    }


def _set(values: dict[str, object], path: Sequence[str], value: object, where: str) -> None:
    """Set the value at a path below `values`, making the mappings on the way.

    Raises VlbenchError if a value is there already, or something other than a mapping is on the way.
    """
    *above, last = path
    for name in above:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            raise VlbenchError(f"{where}: {name} is {brief(inner)}: expected keys with values")
        values = inner
    if last in values:
        raise VlbenchError(f"{where} and {'.'.join(path)} are the same setting: give one of them")
    values[last] = value
