"""An error of one example is separated from its batch; an error of the machine or of the whole batch ends the work."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest

from vlbench.core.errors import DataError, ExitCode, VlbenchError
from vlbench.engine.batching.isolation import isolate
from vlbench.engine.runtime.interrupt import Interrupted


def squares(rows: Sequence[int]) -> list[int]:
    if bad := {3, 5} & set(rows):
        raise DataError(f"image {min(bad)} is damaged")
    return [row * row for row in rows]


@pytest.mark.parametrize(
    ("rows", "result", "failed"),
    [((1, 2), [1, 4], []), ((1, 3, 4, 5), [1, 16], [3, 5]), ((3, 5), None, [3, 5]), ((5,), None, [5])],
)
def test_the_other_rows_get_what_a_batch_of_their_own_gets(
    rows: tuple[int, ...], result: list[int] | None, failed: list[int]
) -> None:
    assert isolate(rows, squares) == (result, {row: f"image {row} is damaged" for row in failed})


def test_an_error_of_the_library_is_named_by_its_type() -> None:
    def work(rows: Sequence[int]) -> None:
        raise IndexError("index out of range\nin self")

    assert isolate([7], work) == (None, {7: "IndexError: index out of range\\nin self"})


def _hidden(cause: Exception) -> Exception:
    """A sentence about an error, raised while that was handled, as all of this package's are."""
    try:
        try:
            raise cause
        except type(cause):
            raise DataError("cannot write the cache") from None
    except DataError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory"),
        RuntimeError("CUDA error: device-side assert triggered"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EMFILE, "Too many open files"),
        _hidden(OSError(errno.ENOSPC, "No space left on device")),
        VlbenchError("out of memory", ExitCode.OUT_OF_MEMORY),
        Interrupted("stopped"),
        KeyboardInterrupt(),
        SystemExit(0),
    ],
    ids=repr,
)
def test_an_error_of_the_machine_or_the_run_is_raised(error: BaseException) -> None:
    def work(rows: Sequence[int]) -> None:
        raise error

    with pytest.raises(type(error)):
        isolate([1, 2], work)


def test_an_error_of_the_batch_that_no_row_has_alone_is_raised() -> None:
    def work(rows: Sequence[int]) -> None:
        if len(rows) > 1:
            raise ValueError("images of different sizes cannot be stacked")

    with pytest.raises(ValueError, match="stacked"):
        isolate([1, 2], work)
