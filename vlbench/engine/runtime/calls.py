"""Calls in other processes (`--jobs`), which send progress and outcomes to this one."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.progress import Progress
from vlbench.engine.runtime.child import (
    SECONDS_TO_STOP,
    CallOutcome,
    Child,
    outcome_of,
    reap,
    seconds_to_stop,
    start,
    stop,
)
from vlbench.engine.runtime.interrupt import Interrupt, Interrupted

_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_BETWEEN_STEPS = 0.1


@dataclass(frozen=True)
class LineMessage:
    """A line of progress."""

    line: str

    def show(self, progress: Progress) -> None:
        """Show it where this process shows progress."""
        progress.say(self.line)


@dataclass(frozen=True)
class StepMessage:
    """A step of progress; see `Progress.step`."""

    what: str
    done: int
    total: int
    note: str

    def show(self, progress: Progress) -> None:
        """Show it where this process shows progress."""
        progress.step(self.what, self.done, self.total, self.note)


class Relay:
    """A Progress that sends to the process that shows it: all lines, and of the steps as many as an eye can follow."""

    def __init__(self, line: Connection) -> None:
        self.line, self.lock = line, threading.Lock()
        self.sent: dict[str, float] = {}

    def say(self, line: str) -> None:
        """Send the line."""
        self._send(LineMessage(line))

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        """Send the step if the last one was sent long enough ago, or if the work is done."""
        now = time.monotonic()
        if done >= total or now - self.sent.get(what, 0.0) >= _SECONDS_BETWEEN_STEPS:
            self.sent[what] = now
            self._send(StepMessage(what, done, total, note))

    def _send(self, message: LineMessage | StepMessage) -> None:
        with self.lock, suppress(OSError):  # nobody reads any more: this process is being stopped
            self.line.send(message)


@dataclass(frozen=True)
class Call:
    """A call in another process. function: importable; it gets a Progress and the arguments, which can be pickled."""

    function: Callable[..., object]
    arguments: tuple[object, ...]
    progress: Progress


@dataclass
class Worker:
    """A process that makes one call after the other. call: the present one; None while it waits."""

    child: Child
    line: Connection
    call: Call | None = None

    @classmethod
    def start(cls, name: str, environment: Mapping[str, str]) -> Worker:
        """Start a process with these variables besides this process's own."""
        line, other = multiprocessing.get_context("spawn").Pipe()
        child = start(name, environment, _serve, (other,))
        other.close()  # so that the end of the process is also the end of its line
        return cls(child, line)

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended, by itself or killed."""
        return not self.child.process.is_alive()

    def give(self, call: Call) -> None:
        """Let the process make the call; its end is seen by `receive`."""
        self.call = call
        with suppress(OSError):
            self.line.send((call.function, call.arguments))

    def receive(self) -> CallOutcome | None:
        """Take the next message, waiting for it, and show progress; returns the outcome of the call where it is one.

        The outcome of a process that has ended is an error.
        """
        try:
            message = self.line.recv()
        except (EOFError, OSError):
            self.child.process.join()
            error = self.child.early_end(": what is saved is kept, and fewer --jobs need less memory")
            message = self.child.outcome() or CallOutcome(message=error.message, exit_code=error.exit_code)
        if isinstance(message, CallOutcome):
            self.call = None
            return message
        if self.call is not None:
            message.show(self.call.progress)
        return None


def _serve(line: Connection) -> None:
    """Make the calls that come, until the other end is closed."""
    with suppress(EOFError, OSError):
        while True:
            function, arguments = line.recv()
            line.send(outcome_of(function, Relay(line), *arguments))


def side_by_side(
    calls: Sequence[Call], environments: Sequence[Mapping[str, str]]
) -> Generator[tuple[int, CallOutcome]]:
    """Make the calls, one at a time in a process with each of the environments; yields outcomes as they come.

    The first calls start first. A process that was killed is replaced, and its call has failed.

    Raises:
        Interrupted: the user asked to stop, or somebody stopped a process; all processes have saved their state.
        VlbenchError: an internal error of a process (exit 1); all processes have stopped.
    """
    waiting, workers = deque(enumerate(calls)), dict[int, Worker]()
    at: dict[int, int] = {}
    with Interrupt() as interrupt:
        try:
            while waiting or at:
                for slot, environment in enumerate(environments):
                    if waiting and slot not in at:
                        if slot not in workers:
                            workers[slot] = Worker.start(f"process {slot + 1} of {len(environments)}", environment)
                        at[slot], call = waiting.popleft()
                        workers[slot].give(call)
                interrupt.check()
                ready = wait([workers[slot].line for slot in at], timeout=_SECONDS_BETWEEN_LOOKS)
                for slot in [slot for slot in at if workers[slot].line in ready]:
                    outcome = workers[slot].receive()
                    if outcome is not None:
                        if workers[slot].has_ended:
                            workers.pop(slot).line.close()
                        else:
                            _raise_if_all_stop(outcome)
                        yield at.pop(slot), outcome
        except BaseException as error:
            _end(list(workers.values()), seconds_to_stop(error, SECONDS_TO_STOP))
            raise
        _end(list(workers.values()), SECONDS_TO_STOP)


def _raise_if_all_stop(outcome: CallOutcome) -> None:
    if outcome.exit_code == ExitCode.INTERRUPTED:
        raise Interrupted(outcome.message)
    if outcome.exit_code == ExitCode.INTERNAL_ERROR:
        raise VlbenchError(outcome.message, outcome.exit_code)


def _end(workers: Sequence[Worker], seconds: float) -> None:
    """Stop the processes that make a call; the others end by themselves when their line is closed."""
    for worker in workers:
        worker.line.close()
    stop([worker.child for worker in workers if worker.call is not None], seconds)
    reap([worker.child for worker in workers if worker.call is None], SECONDS_TO_STOP)


@dataclass
class ParallelCall:
    """A context in which another process makes a call, whose progress this one shows meanwhile."""

    call: Call
    name: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def __enter__(self) -> ParallelCall:
        self.worker = Worker.start(self.name, self.environment)
        self.worker.give(self.call)
        self.outcome: CallOutcome | None = None
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        seconds = SECONDS_TO_STOP if error is None else seconds_to_stop(error, SECONDS_TO_STOP)
        if self.outcome is None:
            stop([self.worker.child], seconds)
            self.listener.join()
        _end([self.worker], seconds)

    def result(self, interrupt: Interrupt) -> object:
        """Wait for the result of the call.

        Raises:
            VlbenchError: the error of the call.
            Interrupted: a signal has been received meanwhile.
        """
        while self.listener.is_alive():
            interrupt.check()
            self.listener.join(_SECONDS_BETWEEN_LOOKS)
        outcome = self.outcome
        if outcome is None:
            raise VlbenchError(f"{self.name} has no result", ExitCode.INTERNAL_ERROR)
        if outcome.exit_code == ExitCode.INTERRUPTED:
            raise Interrupted(outcome.message)
        if outcome.exit_code != ExitCode.OK:
            raise VlbenchError(outcome.message, outcome.exit_code)
        return outcome.result

    def _listen(self) -> None:
        try:
            while self.outcome is None:
                self.outcome = self.worker.receive()
        except VlbenchError as error:  # the progress is logged, and the disk is full
            self.outcome = CallOutcome(message=error.message, exit_code=error.exit_code)
        finally:
            self.worker.line.close()  # the process waits for more work until then
