"""What the numbers of several architectures must agree in; for validators, whose ValueErrors become one sentence."""

from __future__ import annotations


def check_heads(width: int, heads: int) -> None:
    """Raises ValueError where attention heads cannot be equally wide."""
    if width % heads:
        raise ValueError(f"width {width} must be a multiple of heads {heads}")


def check_sides(short_side: int, long_side: int) -> None:
    """Raises ValueError where pictures could not be resized to fit both sides."""
    if short_side > long_side:
        raise ValueError(f"short_side {short_side} must be at most long_side {long_side}")
