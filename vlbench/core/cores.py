"""The processor cores that work may be spread over."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """How many this process may use, which a scheduler or container may keep below those of the machine; at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
