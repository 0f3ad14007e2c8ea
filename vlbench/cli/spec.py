"""Values for a spec: flags, a YAML file and `--set name=value`, and names with commas between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import typer
from pydantic import BaseModel

from vlbench.core.errors import VlbenchError
from vlbench.core.options import names_in, normalise, old_names
from vlbench.core.paths import expand_home
from vlbench.core.yamlfile import parse_yaml, read_yaml
from vlbench.models.hf.folder import PREFIX


def read_sources(
    spec: type[BaseModel], flags: Mapping[str, object], config: Path | None, settings: Sequence[str]
) -> Iterator[tuple[str, dict[str, object]]]:
    """Where values come from, and the values by the paths of the spec's fields; later ones win over earlier ones.

    Raises VlbenchError if the YAML file or a setting cannot be read, or one of them gives a setting twice.
    """
    sources = [(f"--config {config}", read_yaml(config, f"--config {config}"))] if config else []
    sources += [("flags", dict(flags)), ("--set", read_settings(settings))]
    for where, values in sources:
        for name, new in old_names(spec).items():
            if values.get(name) is not None:
                typer.echo(f"note: {name} is deprecated, its name is {new}", err=True)
        yield where, normalise(spec, values, where)


def read_settings(settings: Sequence[str]) -> dict[str, object]:
    """`["train.lr=3e-5", "seed=1"]` as nested keys; values are read as YAML scalars.

    Raises VlbenchError if one has no `=` or no name, or its value is no YAML.
    """
    values: dict[str, object] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not (name and equals):
            raise VlbenchError(f"--set {setting} has no name=value: write for example --set train.lr=3e-5")
        value = parse_yaml(text, f"--set {setting[:100]}") if text else None
        for part in reversed(name.split(".")):
            value = {part.replace("-", "_"): value}
        deep_update(values, value)  # type: ignore[arg-type]
    return values


def require(values: Mapping[str, object], name: str, example: str) -> None:
    """Raise VlbenchError if an option has no value."""
    if values.get(name) is None:
        raise VlbenchError(f"--{name} is missing: name one, e.g. --{name} {example} (`vlbench list {name}s`)")


def deep_update(values: dict[str, object], over: Mapping[str, object]) -> None:
    """Put `over` into `values`, key by key where both hold mappings."""
    for key, value in over.items():
        inner = values.get(key)
        if isinstance(value, Mapping) and isinstance(inner, dict):
            deep_update(inner, value)
        elif isinstance(value, Mapping):
            values[key] = dict(value)
        else:
            values[key] = value


def split_names(kind: str, text: str) -> list[str]:
    """The names in `--task nlvr2,vqa2`; raises VlbenchError if one of them is empty or comes twice."""
    try:
        return list(names_in(text))
    except ValueError as error:
        shown = f"{text!r} " if "empty" in str(error) else ""
        raise VlbenchError(f"--{kind} {shown}{error}") from None


def split_models(text: str) -> list[str]:
    """As `split_names`; a folder or file whose path has commas in it is one model."""
    if text.startswith(PREFIX):
        whole = expand_home(Path(text.removeprefix(PREFIX))).is_dir()
    else:
        whole = expand_home(Path(text.rpartition(":")[0])).is_file()
    return [text] if whole else split_names("model", text)
