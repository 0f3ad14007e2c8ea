"""One function over many items, on all cores, in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from vlbench.core.cores import usable_cores
from vlbench.core.errors import VlbenchError

Item = TypeVar("Item")
Made = TypeVar("Made")

_CHUNK = 32
"""Items a worker takes at a time; fewer than two such chunks are not worth a process."""


def parallel_map(function: Callable[[Item], Made], items: Sequence[Item]) -> Iterator[Made]:
    """Yield `function(item)` for each item, in order; the first error raised is raised here.

    Workers are forked on Linux (they share what is loaded) and spawned elsewhere; `function` must be importable.

    Raises:
        VlbenchError: a worker was killed.
    """
    workers = min(usable_cores(), len(items) // _CHUNK)
    if workers < 2:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_interrupts_to_parent)
    try:
        yield from pool.map(function, items, chunksize=_CHUNK)
    except BrokenProcessPool:
        raise VlbenchError(
            f"one of {workers} workers was killed, most likely for want of memory: free memory and run again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def spare_processes() -> int:
    """How many processes may prepare a model's inputs beside it: none below four cores, else half of them, at most 8.

    Processes that a launcher started on this machine share its cores.
    """
    sharing = os.environ.get("LOCAL_WORLD_SIZE", "")
    cores = usable_cores() // (int(sharing) if sharing.isdigit() and int(sharing) else 1)
    return min(8, cores // 2) if cores >= 4 else 0


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
