"""Processes of our own: torch's elastic launcher starts them, and what ends one of them becomes the command's error."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vlbench.core.cores import usable_cores
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.engine.runtime.interrupt import Interrupted
from vlbench.engine.runtime.ranks import QUIET, give_way

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""Where the launcher looks for what a process says about its end."""


def launch(work: Callable[..., str], arguments: tuple[object, ...], processes: int) -> str:
    """Do the work in so many processes of this machine; what rank 0 returns is returned.

    Each process gets its share of the cores, but for `$OMP_NUM_THREADS` where that is set. When one ends, the launcher
    ends the others within half a minute. Ctrl-C and SIGTERM are handed on to all.

    Args:
        work: importable, as it runs in fresh interpreters; it finds its place by `ranks.join`.
        arguments: of the work.
        processes: how many.

    Raises:
        VlbenchError: a process raised it, or was killed, which is said with its rank.
        Interrupted: asked to stop, and all processes have.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="vlbench-") as folder, _quiet(), _environment(processes):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            returned = elastic_launch(config, _process)(work, arguments)
        except ChildFailedError as error:
            raise _cause(*error.get_first_failure(), processes) from None
        except SignalException:
            raise Interrupted from None
    return cast(str, returned[0])


def _process(work: Callable[..., str], arguments: tuple[object, ...]) -> str:
    """One process, from its beginning to its end."""
    os.setpgid(0, 0)  # a Ctrl-C reaches the launcher, which hands it on: twice would be once too often
    try:
        return work(*arguments)
    except VlbenchError as error:
        give_way(error)
        _hand_over(error.message)
        sys.exit(int(error.exit_code))
    except KeyboardInterrupt:
        sys.exit(int(ExitCode.INTERRUPTED))
    except Exception as error:
        give_way(error)
        traceback.print_exc()
        sys.exit(int(ExitCode.INTERNAL_ERROR))


def _hand_over(message: str) -> None:
    if path := os.environ.get(_ERROR_FILE):
        Path(path).write_text(json.dumps({"message": message}), encoding="utf8")


def _cause(rank: int, failure: ProcessFailure, processes: int) -> VlbenchError:
    """What the process that ended first has to say, or what can be said of it."""
    told = Path(failure.error_file).is_file()
    who = f"process {rank} of {processes}"
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        return VlbenchError(
            f"{who} was ended by {name}, perhaps for want of memory, and the others with it: what is saved is kept",
            ExitCode.INTERRUPTED,
        )
    if not told:
        return VlbenchError(f"{who}: this is a bug of vlbench; the lines above say where", ExitCode.INTERNAL_ERROR)
    if failure.exitcode == ExitCode.INTERRUPTED:
        return Interrupted(failure.message)
    message = failure.message if rank == 0 else f"{who}: {failure.message}"
    return VlbenchError(message, ExitCode(failure.exitcode))


@contextmanager
def _quiet() -> Iterator[None]:
    """What torch logs about processes that end is said by us, in a sentence; the processes log for themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _environment(processes: int) -> Iterator[None]:
    """What the processes inherit: a share of the cores, as each by itself would take all, and silence from torch."""
    wanted = {"OMP_NUM_THREADS": str(max(1, usable_cores() // processes)), QUIET[0]: QUIET[1]}
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
