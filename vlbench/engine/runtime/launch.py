"""Start the processes of a run on this machine, and turn the failure of one into the command's error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait

from vlbench.core.cores import usable_cores
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.engine.runtime.child import CallOutcome, Child, Function, seconds_to_stop, start, stop
from vlbench.engine.runtime.interrupt import Interrupt, Interrupted
from vlbench.engine.runtime.ranks import QUIET

_HOST = "localhost"
_SECONDS_WITHOUT_PEER = 3.0
"""Within this time a process stops after the failure of another one, without which no state can be saved."""
_SECONDS_BETWEEN_LOOKS = 0.1


def launch(work: Function, arguments: tuple[object, ...], processes: int) -> str:
    """Run `work` in several processes of this machine and return the result of rank 0.

    Each process gets its share of the cores, unless `$OMP_NUM_THREADS` is set. When one fails, the launcher ends the
    others within seconds. Ctrl-C and SIGTERM are forwarded to all processes. When the launcher itself is killed,
    they stop as after Ctrl-C.

    work: learns its rank with `ranks.joined`.

    Raises:
        VlbenchError: a process raised it, was killed, or ended without a result; the message names its rank.
        Interrupted: the user asked to stop, and all processes have stopped.
    """
    from torch._C._distributed_c10d import TCPStore  # torch.distributed has it, but does not export it by name

    store = TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
    meeting = {"MASTER_ADDR": _HOST, "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
    with Interrupt() as interrupt, _environment(processes):
        running: list[Child] = []
        try:
            for rank in range(processes):
                ranks = dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
                running.append(start(f"process {rank} of {processes}", meeting | sizes | ranks, work, arguments))
            return _wait(running, interrupt)
        except BaseException as error:
            stop(running, seconds_to_stop(error, _SECONDS_WITHOUT_PEER))
            raise


def _wait(running: list[Child], interrupt: Interrupt) -> str:
    """Take each process that has ended from `running`; returns the result of rank 0, raises the error of the first."""
    main, result = running[0], ""
    while running:
        interrupt.check()
        ended = wait([child.process.sentinel for child in running], timeout=_SECONDS_BETWEEN_LOOKS)
        for child in [child for child in running if child.process.sentinel in ended]:
            running.remove(child)
            outcome = child.outcome()
            if outcome is None or outcome.exit_code != ExitCode.OK:
                child.kill()
                raise _error_of(child, outcome, child is main)
            child.process.join()
            result = str(outcome.result) if child is main else result
    return result


def _error_of(child: Child, outcome: CallOutcome | None, is_main: bool) -> VlbenchError:
    """The error of a process that has ended: its own message, or how it ended."""
    if outcome is None:
        return child.early_end(", and the others with it: what is saved is kept")
    if outcome.exit_code == ExitCode.INTERRUPTED:
        return Interrupted(outcome.message)
    return VlbenchError(outcome.message if is_main else f"{child.name}: {outcome.message}", outcome.exit_code)


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
