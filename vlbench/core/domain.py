"""The looks that the built-in world comes in."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from vlbench.core.errors import unknown

Domain: TypeAlias = Literal["plain", "textured"]


def known_domain(name: str) -> Domain:
    """The domain of that name; an unknown one is an error that names the near miss."""
    for domain in get_args(Domain):
        if domain == name:
            return domain  # type: ignore[no-any-return]
    raise unknown("domain", name, get_args(Domain))
