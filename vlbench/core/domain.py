"""The domains of the synthetic world: how its images are drawn."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from vlbench.core.errors import unknown

Domain: TypeAlias = Literal["plain", "textured"]


def known_domain(name: str) -> Domain:
    """The domain of that name; raises VlbenchError with a near miss if there is none."""
    for domain in get_args(Domain):
        if domain == name:
            return domain  # type: ignore[no-any-return]
    raise unknown("domain", name, get_args(Domain))
