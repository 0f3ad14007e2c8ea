"""Read YAML from untrusted files: no objects are built, no code runs, and every error is one sentence."""

from __future__ import annotations

from pathlib import Path

import yaml

from vlbench.core.errors import VlbenchError

_LONGEST = 300
_FAST: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path, name: str, trusted: bool = False) -> dict[str, object]:
    """Read the mapping in a file, with its keys as strings.

    name: of the file, in errors. trusted: whether it is part of vlbench; then libyaml reads it, which is faster but
    crashes on endless nesting.

    Raises:
        VlbenchError: the file cannot be read, is not YAML, gives a key twice, or is not a mapping.
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
    """Parse a YAML text.

    Raises:
        VlbenchError: it is not YAML, has a tag of Python objects, or gives a key twice in a mapping (with both lines).
    """
    try:
        loader = (_FAST if trusted else yaml.SafeLoader)(text)
        try:
            node = loader.get_single_node()
            twice = _key_twice(node, loader)
            value = None if node is None or twice else loader.construct_document(node)
        finally:
            loader.dispose()
    except Exception as error:  # also of numbers, dates, endless nesting, and keys that cannot be hashed
        why = "it is nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise VlbenchError(f"{name} is not YAML: {why[:_LONGEST]}") from None
    if twice:
        key, first, second = twice
        where = f"in line {first}" if first == second else f"in lines {first} and {second}"
        raise VlbenchError(f"{name} gives the key {key[:_LONGEST]!r} twice, {where}: leave one of them out")
    return value


def _key_twice(root: yaml.Node | None, loader: yaml.SafeLoader) -> tuple[str, int, int] | None:
    """The first key that a mapping gives twice, with the two lines counted from 1; None if there is none.

    Keys are compared by value. A key may replace one that `<<` merges from another mapping.
    """
    todo, visited = [root] if root else [], set[int]()
    while todo:
        node = todo.pop()
        if id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo.extend(reversed(node.value))
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    line, value = key.start_mark.line + 1, _key_value(key, loader)
                    if value in lines:
                        return key.value, lines[value], line
                    lines[value] = line
            todo.extend(value for _, value in reversed(node.value))
    return None


def _key_value(key: yaml.ScalarNode, loader: yaml.SafeLoader) -> str:
    """The value of a key as text, so that 2 and "2" are equal, and true and yes."""
    return "<<" if key.tag == "tag:yaml.org,2002:merge" else str(loader.construct_object(key))


def is_yaml_file(path: Path) -> bool:
    """Whether a path has the suffix of a file of published results."""
    return path.suffix.lower() in (".yaml", ".yml")
