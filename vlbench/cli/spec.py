"""Values for a RunSpec from a YAML file and from `--set name=value`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlbench.core.errors import VlbenchError, first_five


def read_config(path: Path) -> dict[str, object]:
    """The keys of a YAML file.

    Raises:
        VlbenchError: no such file, not YAML, not a mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf8"))
    except (OSError, UnicodeDecodeError) as error:
        raise VlbenchError(f"--config {path} cannot be read ({error}): give a YAML file") from None
    except yaml.YAMLError as error:
        raise VlbenchError(f"--config {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise VlbenchError(f"--config {path} holds {type(values).__name__}, expected keys such as task and model")
    return {str(key): value for key, value in values.items()}


def read_settings(settings: Sequence[str]) -> dict[str, object]:
    """`["train.lr=3e-5", "seed=1"]` as nested keys; values are read as YAML scalars.

    Raises:
        VlbenchError: one has no `=` or no name.
    """
    import yaml

    values: dict[str, object] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not (name and equals):
            raise VlbenchError(f"--set {setting} has no name=value: write for example --set train.lr=3e-5")
        value: object = yaml.safe_load(text) if text else None
        for part in reversed(name.split(".")):
            value = {part.replace("-", "_"): value}
        deep_update(values, value)  # type: ignore[arg-type]
    return values


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
    """Names with commas between them, as `--task nlvr2,vqa2` has them.

    Raises:
        VlbenchError: one of them is empty or comes twice.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise VlbenchError(f"--{kind} {text!r} holds an empty name: expected names with commas between them")
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise VlbenchError(f"--{kind} names {first_five(twice)} more than once: name each once")
    return names
