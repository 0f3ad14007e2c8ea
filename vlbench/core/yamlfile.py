"""YAML from anywhere, read without making objects or running code, so that every fault is a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
        VlbenchError: it cannot be read, is not YAML, gives a key twice, or holds something else.
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
        VlbenchError: it is none, names an object of Python's, or gives a key twice in one mapping, with both lines.
    """
    try:
        loader: Any = (_FAST if trusted else yaml.SafeLoader)(text)
        try:
            node = loader.get_single_node()
            twice = _key_twice(node, loader)
            value = None if node is None or twice else loader.construct_document(node)
        finally:
            loader.dispose()
    except _FAULTS as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise VlbenchError(f"{name} is not YAML: {why[:_LONGEST]}") from None
    if twice:
        key, first, second = twice
        where = f"in line {first}" if first == second else f"in lines {first} and {second}"
        raise VlbenchError(f"{name} gives the key {key[:_LONGEST]!r} twice, {where}: leave one of them out")
    return value


def _key_twice(root: yaml.Node | None, loader: Any) -> tuple[str, int, int] | None:
    """The first key that comes twice in one mapping, by what it means, with both lines counted from 1.

    Only what is written out counts: a key may replace one that `<<` takes over from another mapping.
    """
    todo, seen = [root] if root else [], set[int]()
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo.extend(reversed(node.value))
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    line, meaning = key.start_mark.line + 1, _meaning(key, loader)
                    if meaning in lines:
                        return key.value, lines[meaning], line
                    lines[meaning] = line
            todo.extend(value for _, value in reversed(node.value))
    return None


def _meaning(key: yaml.ScalarNode, loader: Any) -> str:
    """A key as keys of cards are read, so that 2 and "2" are one, as are true and yes."""
    return "<<" if key.tag == "tag:yaml.org,2002:merge" else str(loader.construct_object(key))
