"""Errors of single examples, separated from the other examples of their batch."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from vlbench.core.errors import ExitCode, VlbenchError, causes, shortage
from vlbench.core.examples import Examples

Result = TypeVar("Result")
Failures: TypeAlias = dict[int, str]
"""Row of an example -> why it cannot be answered."""

_OF_MACHINE = {errno.EROFS, errno.EMFILE, errno.ENFILE}
"""Beside `shortage`: a disk that cannot be written, and too many open files."""
_OF_RUN = {ExitCode.OUT_OF_MEMORY, ExitCode.INTERRUPTED}


def isolate(rows: Sequence[int], work: Callable[[Sequence[int]], Result]) -> tuple[Result | None, Failures]:
    """The result of `work` on the rows that it does not fail for, None if there are none, and why it fails for others.

    work: has no side effects where it fails. Where it fails for several rows, it is tried on each row alone, then on
    all rows without those that fail: they get what they would get in a batch of their own.

    Raises:
        Exception: that of `work`, if it is not an error of one example, or if every row alone succeeds.
    """
    try:
        return work(rows), {}
    except Exception as error:
        if not is_of_one_example(error):
            raise
        if len(rows) == 1:
            return None, {rows[0]: _reason(error)}
        of_batch = error
    failures: Failures = {}
    for row in rows:
        failures |= isolate([row], work)[1]
    if not failures:
        raise of_batch
    rest = [row for row in rows if row not in failures]
    return (work(rest) if rest else None), failures


def name_example(
    error: Exception, rows: Sequence[int], examples: Examples, work: Callable[[Sequence[int]], object]
) -> None:
    """Add a note with the id of the first example for which `work` fails alone, except to errors that name it."""
    if isinstance(error, VlbenchError) or not is_of_one_example(error):
        return
    for row in rows:
        try:
            work([row])
        except Exception:
            error.add_note(f"example {examples[row].id!r}")
            return


def is_of_one_example(error: BaseException) -> bool:
    """Whether the error may be about one example, and not about memory, disks, the device or the whole run."""
    return not any(map(_stops, causes(error)))


def _stops(error: BaseException) -> bool:
    if isinstance(error, VlbenchError) and error.exit_code in _OF_RUN:
        return True
    if isinstance(error, OSError) and error.errno in _OF_MACHINE:
        return True
    if isinstance(error, Exception) and shortage(error):
        return True
    return "CUDA error" in str(error)  # after which the device computes nothing more


def _reason(error: Exception) -> str:
    """Its sentence; of another error its type and text, on one line of limited length."""
    return (error if isinstance(error, VlbenchError) else VlbenchError(f"{type(error).__name__}: {error}")).message
