"""The processor cores and the memory that this process may use."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores() -> int:
    """The cores this process may use, at least 1; a scheduler or container may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """The number of threads that torch uses by default: OMP_NUM_THREADS, else the cores this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) > 0 else usable_cores()


def free_memory() -> int | None:
    """Bytes of memory that can still be allocated; None where the platform does not say."""
    lines = _read_system_file("/proc/meminfo").splitlines()
    available = next((line for line in lines if line.startswith("MemAvailable:")), "")
    bounds = [int(available.split()[1]) * 1024] if available else []
    limit, used = (_read_system_file(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if limit.isdigit() and used.isdigit():  # the limit of a container may be far below the machine's memory
        bounds.append(int(limit) - int(used))
    return min(bounds, default=None)


def _read_system_file(path: str) -> str:
    """The text of a system file; empty if there is none."""
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
