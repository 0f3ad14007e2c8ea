"""Start the processes of a run on this machine, and turn the failure of one into the command's error."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import NoReturn

from vlbench.core.cores import usable_cores
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.user_code import print_frames, user_faults
from vlbench.engine.runtime.ending import end_process
from vlbench.engine.runtime.interrupt import Interrupt, Interrupted
from vlbench.engine.runtime.ranks import QUIET, give_way

_HOST = "localhost"
_SECONDS_TO_STOP = 30.0
"""Within this time a process that is asked to stop saves its state; then it is killed."""
_SECONDS_WITHOUT_PEER = 3.0
"""The same after the failure of another process, without which no state can be saved."""
_SECONDS_BETWEEN_LOOKS = 0.1

Work = Callable[..., str]


@dataclass(frozen=True)
class Outcome:
    """What a process reports before it ends: the result of its work, or the message of its error."""

    text: str
    exit_code: ExitCode = ExitCode.OK


@dataclass(frozen=True)
class Rank:
    """A started process, the leader of a process group with its helpers, and where it reports its outcome."""

    number: int
    process: SpawnProcess
    outcomes: Connection

    def outcome(self) -> Outcome | None:
        """What the process has reported; None if it ended without a report."""
        try:
            return self.outcomes.recv() if self.outcomes.poll() else None
        except (EOFError, OSError):
            return None

    def kill(self) -> None:
        """Kill what is left of the process and its helpers, and reap it: until then no other process gets its id."""
        with suppress(OSError):  # it has just started and leads no group yet
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.kill()
        self.process.join()


def launch(work: Work, arguments: tuple[object, ...], processes: int) -> str:
    """Run `work` in several processes of this machine and return the result of rank 0.

    Each process gets its share of the cores, unless `$OMP_NUM_THREADS` is set. When one fails, the launcher ends the
    others within seconds. Ctrl-C and SIGTERM are forwarded to all processes. When the launcher itself is killed,
    they stop as after Ctrl-C.

    work: importable, since it runs in new interpreters; it learns its rank with `ranks.joined`.

    Raises:
        VlbenchError: a process raised it, was killed, or ended without a result; the message names its rank.
        Interrupted: the user asked to stop, and all processes have stopped.
    """
    from torch._C._distributed_c10d import TCPStore  # torch.distributed has it, but does not export it by name

    store = TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
    meeting = {"MASTER_ADDR": _HOST, "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
    with Interrupt() as interrupt, _environment(processes):
        running: list[Rank] = []
        try:
            running.extend(_start(number, meeting | sizes, work, arguments) for number in range(processes))
            return _wait(running, interrupt)[0]
        except BaseException as error:
            _end(running, _seconds_to_stop(error))
            raise


def _seconds_to_stop(error: BaseException) -> float:
    if isinstance(error, Interrupted):
        return _SECONDS_TO_STOP
    return 0.0 if isinstance(error, KeyboardInterrupt) else _SECONDS_WITHOUT_PEER


def _start(number: int, environment: dict[str, str], work: Work, arguments: tuple[object, ...]) -> Rank:
    context = multiprocessing.get_context("spawn")
    outcomes, report = context.Pipe(duplex=False)
    ranks = dict.fromkeys(("RANK", "LOCAL_RANK"), str(number))
    process = context.Process(target=_process, args=(environment | ranks, work, arguments, report))
    process.start()
    report.close()  # so that the end of the process is also the end of its reports
    return Rank(number, process, outcomes)


def _wait(running: list[Rank], interrupt: Interrupt) -> dict[int, str]:
    """Take each process that has ended from `running`; returns the results by rank, raises the error of the first."""
    results: dict[int, str] = {}
    processes = len(running)
    while running:
        interrupt.check()
        ended = wait([rank.process.sentinel for rank in running], timeout=_SECONDS_BETWEEN_LOOKS)
        for rank in [rank for rank in running if rank.process.sentinel in ended]:
            running.remove(rank)
            outcome = rank.outcome()
            if outcome is None or outcome.exit_code != ExitCode.OK:
                rank.kill()
                raise _error_of(rank, outcome, processes)
            rank.process.join()
            results[rank.number] = outcome.text
    return results


def _end(running: Sequence[Rank], seconds: float) -> None:
    """Ask the processes to stop, wait, and kill what is left of them and their helpers."""
    for rank in running:
        rank.process.terminate()
    until = time.monotonic() + seconds
    try:
        for rank in running:
            wait([rank.process.sentinel], timeout=max(0.0, until - time.monotonic()))
    finally:  # after another Ctrl-C, too
        for rank in running:
            rank.kill()


def _process(environment: dict[str, str], work: Work, arguments: tuple[object, ...], report: Connection) -> NoReturn:
    """The entry point of one process."""
    os.setpgid(0, 0)  # Ctrl-C then reaches the launcher only, which forwards it: otherwise it would arrive twice
    # A spawned process would spawn its data workers too: slowly, and without the modules of plug-ins.
    multiprocessing.set_start_method(None, force=True)
    threading.Thread(target=_stop_with_launcher, daemon=True).start()
    os.environ.update(environment)
    try:
        with user_faults():
            outcome = Outcome(work(*arguments))
    except VlbenchError as error:
        give_way(error)
        print_frames(error)
        outcome = Outcome(error.message, error.exit_code)
    except KeyboardInterrupt:
        outcome = Outcome("interrupted", ExitCode.INTERRUPTED)
    except Exception as error:
        give_way(error)
        traceback.print_exc()
        outcome = Outcome("internal error of vlbench; the lines above say where", ExitCode.INTERNAL_ERROR)
    with suppress(OSError):  # the launcher has died
        report.send(outcome)
    end_process(int(outcome.exit_code))


def _stop_with_launcher() -> None:
    """When the launcher has died, stop this process as Ctrl-C does; if it does not, kill it and its helpers."""
    launcher = multiprocessing.parent_process()
    if launcher is not None:
        wait([launcher.sentinel])
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(_SECONDS_TO_STOP)
        os.killpg(0, signal.SIGKILL)


def _error_of(rank: Rank, outcome: Outcome | None, processes: int) -> VlbenchError:
    """The error of a process that has ended: its own message, or how it ended."""
    who, code = f"process {rank.number} of {processes}", rank.process.exitcode or 0
    if outcome is not None:
        if outcome.exit_code == ExitCode.INTERRUPTED:
            return Interrupted(outcome.text)
        return VlbenchError(outcome.text if rank.number == 0 else f"{who}: {outcome.text}", outcome.exit_code)
    if code < 0:
        name = signal.Signals(-code).name
        return VlbenchError(
            f"{who} was ended by {name}, perhaps for lack of memory, and the others with it: what is saved is kept",
            ExitCode.INTERRUPTED,
        )
    return VlbenchError(
        f"{who} ended with exit code {code} before its work was done: where no lines above say why, code of a task, "
        f"metric or model has called os._exit, and should raise an error instead",
        ExitCode.INTERNAL_ERROR if code else ExitCode.USER_CODE,
    )


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
