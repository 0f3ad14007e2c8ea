"""What in a model's folder reaches for code, of its own or on the hub: judged before the library reads the folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from vlbench.core.errors import first_five, untrusted_code

_CONFIGS = "*config*.json"
"""The files that name classes and implementations, config.4.0.0.json and the like included."""
_CODE = ("auto_map", "custom_generate", "audio_tokenizer_name_or_path")
"""Keys that name Python files, or a part of the model that has a folder of its own."""
_KERNEL = "implementation"
"""Part of keys that may name a kernel of the hub (`_attn_implementation: owner/name`)."""
_HUB = ("hf-hub:", "hf_hub:")
"""The beginnings of names by which timm builds a network from the hub."""


def code_in(config: object) -> str:
    """The keys of a config that reach for code, also in the configs of its parts; empty if there are none."""
    return first_five(dict.fromkeys(_keys(config)))


def check_trusted(folder: Path, name: str, trusted: bool) -> None:
    """Check that nothing in the folder reaches for code, unless it is trusted.

    The package `kernels`, through which the library fetches code from the hub for some models without being asked, is
    hidden from it for the rest of the process, unless a trusted model has been loaded before.

    Raises VlbenchError: a config of the folder reaches for code; the message names file and keys.
    """
    if trusted:
        return
    for file in sorted(folder.glob(_CONFIGS)):
        try:
            content = json.loads(file.read_text(encoding="utf8"))
        except (OSError, ValueError, RecursionError):
            continue  # the library does not read it either
        if found := code_in(content):
            raise untrusted_code(name, f"{found} in its {file.name}")
    if "kernels" not in sys.modules:
        sys.modules["kernels"] = None  # type: ignore[assignment]  # how Python marks a package as not importable


def _keys(value: object) -> Iterator[str]:
    parts = [value]
    while parts:  # no recursion: a hostile config may be deeply nested
        part = parts.pop()
        if isinstance(part, list):
            parts += part
        elif isinstance(part, Mapping):
            parts += part.values()
            for key, inner in part.items():
                names_kernel = _KERNEL in key and "/" in json.dumps(inner)
                names_network = isinstance(inner, str) and inner.startswith(_HUB)
                if (key in _CODE and inner) or names_kernel or names_network:
                    yield str(key)
