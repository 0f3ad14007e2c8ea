"""Values for a RunSpec from a YAML file and from `--set name=value`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlbench.core.errors import VlbenchError, first_five
from vlbench.core.yamlfile import parse_yaml, read_yaml
from vlbench.models.hf.folder import PREFIX


def read_config(path: Path) -> dict[str, object]:
    """The keys of a YAML file.

    Raises:
        VlbenchError: no such file, not YAML, not a mapping.
    """
    return read_yaml(path, f"--config {path}")


def read_settings(settings: Sequence[str]) -> dict[str, object]:
    """`["train.lr=3e-5", "seed=1"]` as nested keys; values are read as YAML scalars.

    Raises:
        VlbenchError: one has no `=` or no name, or its value is no YAML.
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


def read_towers(text: str) -> dict[str, str]:
    """`vision=hf:NAME,text=FOLDER` as a mapping from a tower to where its weights lie.

    Raises:
        VlbenchError: one has no `=`, no name or nothing after it, or a tower comes twice.
    """
    parts = [part.partition("=") for part in text.split(",")]
    if faulty := [name for name, _, source in parts if not (name.strip() and source.strip())]:
        raise VlbenchError(f"--init {text!r} has no TOWER=WEIGHTS at {faulty[0]!r}: write vision=hf:NAME,text=FOLDER")
    names = split_names("init", ",".join(name for name, _, _ in parts))
    return dict(zip(names, (source.strip() for _, _, source in parts), strict=True))


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


def split_models(text: str) -> list[str]:
    """As `split_names`; a folder or file whose path has commas in it is one model."""
    if text.startswith(PREFIX):
        whole = Path(text.removeprefix(PREFIX)).expanduser().is_dir()
    else:
        whole = Path(text.rpartition(":")[0]).expanduser().is_file()
    return [text] if whole else split_names("model", text)
