"""Blame a file that a foreign reader (Pillow, pyarrow, numpy, safetensors, torch.load, ...) does not read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlbench.core.errors import DataError, ExitCode, VlbenchError, is_out_of_memory

_MAX_REASON = 160
"""Characters of a library's own error that a message quotes."""


@contextmanager
def reading(path: Path, fault: str, remedy: str, exit_code: ExitCode = ExitCode.DATA) -> Iterator[None]:
    """Turn any error of a foreign reader into a sentence: PATH FAULT (the reader's reason): REMEDY.

    fault: a verb and what follows, as in "is not a readable .npy file". The block holds the library's call and nothing
    of vlbench, whose own errors would be blamed on the file. A VlbenchError and a lack of memory pass unchanged; the
    library's error is the cause of the new one.
    Raises VlbenchError (exit_code): the reader raised.
    """
    try:
        yield
    except VlbenchError:
        raise
    except Exception as error:  # readers raise any type for damaged bytes, so that no list of types is complete
        if is_out_of_memory(error):
            raise
        message = f"{path} {fault} ({reason_of(error)}): {remedy}"
        raise (DataError(message) if exit_code == ExitCode.DATA else VlbenchError(message, exit_code)) from error


def reason_of(error: Exception) -> str:
    """The first line of a library's error, shortened; the name of its type where it says nothing."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error).strip().partition("\n")[0]
    return text[:_MAX_REASON] or type(error).__name__
