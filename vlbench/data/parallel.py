"""Map a function over many items on all cores, in order."""

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
Result = TypeVar("Result")

_CHUNK = 32
"""Items per task of a worker; fewer than two such chunks do not justify processes."""


def parallel_map(
    function: Callable[[Item], Result], items: Sequence[Item], progress: Callable[[int, int], None] | None = None
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order; the first error raised is raised here.

    Workers are forked on Linux (they share loaded memory) and spawned elsewhere; `function` must be importable.
    progress: called with the number of items done and of all items. Raises VlbenchError if a worker was killed.
    """
    for done, result in enumerate(_map(function, items), start=1):
        yield result
        if progress:
            progress(done, len(items))


def _map(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    workers = min(usable_cores(), len(items) // _CHUNK)
    if workers < 2:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupts)
    try:
        yield from pool.map(function, items, chunksize=_CHUNK)
    except BrokenProcessPool:
        raise VlbenchError(
            f"one of {workers} workers was killed, most likely out of memory: free memory and run again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def spare_processes() -> int:
    """Return the number of processes for data loading: 0 below four cores, else half of the cores, at most 8.

    Processes that a launcher (such as torchrun) started on this machine share its cores.
    """
    local_processes = os.environ.get("LOCAL_WORLD_SIZE", "")
    cores = usable_cores() // (int(local_processes) if local_processes.isdigit() and int(local_processes) else 1)
    return min(8, cores // 2) if cores >= 4 else 0


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the parent process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
