"""Readers of foreign files: whatever a reader raises becomes one sentence with the file's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vlbench.core.errors import VlbenchError, is_out_of_memory

_LONGEST = 160
"""The largest number of characters of a reader's reason."""


@contextmanager
def foreign_reader(fault: Callable[[str], VlbenchError]) -> Iterator[None]:
    """Raise `fault(reason)` for any exception of the reader in the block, which holds that call alone.

    A damaged or hostile file makes readers raise exceptions of any type, so there is no list of them. A VlbenchError
    and a lack of memory are raised as they are. reason: the first line of the exception's text, or its type.
    """
    try:
        yield
    except VlbenchError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise fault(reason_of(error)) from error


def reason_of(error: Exception) -> str:
    """The first line of the exception's text, shortened; of an OSError only what went wrong; its type without text."""
    text = str(error.strerror or error) if isinstance(error, OSError) else str(error)
    lines = text.strip().splitlines()
    return lines[0][:_LONGEST] if lines else type(error).__name__
