"""Start the processes of a run with torch's elastic launcher, and turn the failure of one into the command's error."""

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
from typing import TYPE_CHECKING

from vlbench.core.cores import usable_cores
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.user_code import UserCodeError, user_faults
from vlbench.engine.runtime.interrupt import Interrupted
from vlbench.engine.runtime.ranks import QUIET, give_way

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""The variable with the path of the file from which the launcher reads the error of a process."""


def launch(work: Callable[..., str], arguments: tuple[object, ...], processes: int) -> str:
    """Run `work` in several processes of this machine and return the result of rank 0.

    Each process gets its share of the cores, unless `$OMP_NUM_THREADS` is set. When one fails, the launcher ends the
    others within half a minute. Ctrl-C and SIGTERM are forwarded to all processes.

    work: importable, since it runs in new interpreters; it learns its rank with `ranks.join`.

    Raises:
        VlbenchError: a process raised it or was killed; the message names its rank.
        Interrupted: the user asked to stop, and all processes have stopped.
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
            results: dict[int, str] = elastic_launch(config, _process)(work, arguments)
        except ChildFailedError as error:
            raise _error_of(*error.get_first_failure(), processes) from None
        except SignalException:
            raise Interrupted from None
    return results[0]


def _process(work: Callable[..., str], arguments: tuple[object, ...]) -> str:
    """The entry point of one process."""
    os.setpgid(0, 0)  # Ctrl-C then reaches the launcher only, which forwards it: otherwise it would arrive twice
    try:
        with user_faults():
            return work(*arguments)
    except VlbenchError as error:
        give_way(error)
        if isinstance(error, UserCodeError):
            print(error.frames, end="", file=sys.stderr)
        if path := os.environ.get(_ERROR_FILE):
            Path(path).write_text(json.dumps({"message": error.message}), encoding="utf8")
        sys.exit(int(error.exit_code))
    except KeyboardInterrupt:
        sys.exit(int(ExitCode.INTERRUPTED))
    except Exception as error:
        give_way(error)
        traceback.print_exc()
        sys.exit(int(ExitCode.INTERNAL_ERROR))


def _error_of(rank: int, failure: ProcessFailure, processes: int) -> VlbenchError:
    """The error of the process that failed first: its own message, or how it ended."""
    who = f"process {rank} of {processes}"
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        return VlbenchError(
            f"{who} was ended by {name}, perhaps for lack of memory, and the others with it: what is saved is kept",
            ExitCode.INTERRUPTED,
        )
    if not Path(failure.error_file).is_file():  # the process wrote no message
        return VlbenchError(f"{who}: internal error of vlbench; the lines above say where", ExitCode.INTERNAL_ERROR)
    if failure.exitcode == ExitCode.INTERRUPTED:
        return Interrupted(failure.message)
    message = failure.message if rank == 0 else f"{who}: {failure.message}"
    return VlbenchError(message, ExitCode(failure.exitcode))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's log of failed processes: `_error_of` reports them. The processes' own logs are not affected."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _environment(processes: int) -> Iterator[None]:
    """Set variables that the processes inherit: a share of the cores, as each would use all, and no torch warnings."""
    wanted = {"OMP_NUM_THREADS": str(max(1, usable_cores() // processes)), QUIET[0]: QUIET[1]}
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
