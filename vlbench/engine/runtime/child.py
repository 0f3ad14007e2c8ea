"""A process that this one starts for a call: it reports an outcome, and stops with its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import NoReturn

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.user_code import print_frames, user_faults
from vlbench.engine.runtime.ending import end_process
from vlbench.engine.runtime.interrupt import Interrupted
from vlbench.engine.runtime.ranks import give_way

SECONDS_TO_STOP = 30.0
"""Within this time a process that is asked to stop saves its state; then it is killed."""

Function = Callable[..., object]
"""Importable, since it runs in a new interpreter; its arguments and its result can be pickled."""


@dataclass(frozen=True)
class CallOutcome:
    """How a call ended: its result, or the message of its error."""

    result: object = None
    message: str = ""
    exit_code: ExitCode = ExitCode.OK


@dataclass(frozen=True)
class Child:
    """A started process, the leader of a process group with its helpers, and where it reports its outcome.

    name: of the process, for messages.
    """

    name: str
    process: SpawnProcess
    outcomes: Connection

    def outcome(self) -> CallOutcome | None:
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

    def early_end(self, remedy: str) -> VlbenchError:
        """The error that the process has ended without a report. remedy: ends the sentence about a signal."""
        code = self.process.exitcode or 0
        if code < 0:
            name = signal.Signals(-code).name
            return VlbenchError(
                f"{self.name} was ended by {name}, perhaps for lack of memory{remedy}", ExitCode.INTERRUPTED
            )
        return VlbenchError(
            f"{self.name} ended with exit code {code} before its work was done: where no lines above say why, code of "
            f"a task, metric or model has called os._exit, and should raise an error instead",
            ExitCode.INTERNAL_ERROR if code else ExitCode.USER_CODE,
        )


def start(name: str, environment: Mapping[str, str], function: Function, arguments: tuple[object, ...]) -> Child:
    """Start a process that calls the function with these variables besides this process's own."""
    context = multiprocessing.get_context("spawn")
    outcomes, report = context.Pipe(duplex=False)
    process = context.Process(target=_process, args=(environment, function, arguments, report))
    process.start()
    report.close()  # so that the end of the process is also the end of its reports
    return Child(name, process, outcomes)


def stop(children: Sequence[Child], seconds: float) -> None:
    """Ask the processes to stop, then `reap` them."""
    for child in children:
        child.process.terminate()
    reap(children, seconds)


def reap(children: Sequence[Child], seconds: float) -> None:
    """Wait for the ends of the processes, and kill what is left of them and their helpers."""
    until = time.monotonic() + seconds
    try:
        for child in children:
            wait([child.process.sentinel], timeout=max(0.0, until - time.monotonic()))
    finally:  # after another Ctrl-C, too
        for child in children:
            child.kill()


def seconds_to_stop(error: BaseException, otherwise: float) -> float:
    """How long processes may take to stop after an error of this one: no time after a second Ctrl-C."""
    if isinstance(error, Interrupted):
        return SECONDS_TO_STOP
    return 0.0 if isinstance(error, KeyboardInterrupt) else otherwise


def outcome_of(function: Function, *arguments: object) -> CallOutcome:
    """Call the function; an error is printed where its message does not say all."""
    try:
        with user_faults():
            return CallOutcome(function(*arguments))
    except VlbenchError as error:
        give_way(error)
        print_frames(error)
        return CallOutcome(message=error.message, exit_code=error.exit_code)
    except KeyboardInterrupt:
        return CallOutcome(message="interrupted", exit_code=ExitCode.INTERRUPTED)
    except Exception as error:
        give_way(error)
        traceback.print_exc()
        return CallOutcome(
            message="internal error of vlbench; the lines above say where", exit_code=ExitCode.INTERNAL_ERROR
        )


def _process(
    environment: Mapping[str, str], function: Function, arguments: tuple[object, ...], report: Connection
) -> NoReturn:
    """The entry point of the process."""
    os.setpgid(0, 0)  # Ctrl-C then reaches the parent only, which forwards it: otherwise it would arrive twice
    # A spawned process would spawn its data workers too: slowly, and without the modules of plug-ins.
    multiprocessing.set_start_method(None, force=True)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    os.environ.update(environment)
    outcome = outcome_of(function, *arguments)
    with suppress(OSError):  # the parent has died
        report.send(outcome)
    end_process(int(outcome.exit_code))


def _stop_with_parent() -> None:
    """When the parent has died, stop this process as Ctrl-C does; if it does not, kill it and its helpers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(SECONDS_TO_STOP)
        os.killpg(0, signal.SIGKILL)
