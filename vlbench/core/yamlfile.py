"""YAML from anywhere, read without making objects or running code, so that every fault is a sentence."""

from __future__ import annotations

from pathlib import Path

import yaml

from vlbench.core.errors import VlbenchError

_FAULTS = (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError)
"""Besides YAML's own: numbers and dates that are none, endless nesting, sets and mappings of what cannot be a key."""
_LONGEST = 300
_FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path, name: str, trusted: bool = False) -> dict[str, object]:
    """The mapping that a file holds, its keys as strings.

    Args:
        path: the file.
        name: what it is called in errors.
        trusted: it came with vlbench; libyaml, which is quicker, crashes on endless nesting.

    Raises:
        VlbenchError: it cannot be read, is not YAML, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf8")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a null byte in the path
        raise VlbenchError(f"{name} cannot be read ({error}): give a YAML file in UTF-8") from None
    values = parse_yaml(text, name, trusted)
    if not isinstance(values, dict):
        raise VlbenchError(f"{name} holds {type(values).__name__}, expected keys with values")
    return {str(key): value for key, value in values.items()}


def parse_yaml(text: str, name: str, trusted: bool = False) -> object:
    """The value that YAML spells.

    Raises:
        VlbenchError: it is none, or names an object of Python's.
    """
    try:
        return yaml.load(text, Loader=_FAST if trusted else yaml.SafeLoader)
    except _FAULTS as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise VlbenchError(f"{name} is not YAML: {why[:_LONGEST]}") from None
