"""User errors: one sentence each, and the exit codes of the command line."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from enum import IntEnum

_NO_MEMORY = (
    "out of memory",
    "DefaultCPUAllocator",
    "Cannot allocate memory",
    "bad_alloc",
    "Insufficient memory",
    "failed to map segment",
    "could not create a primitive",
    "error return without exception set",
)
"""What the messages of torch, the operating system, C++, the loader of libraries, oneDNN and extensions in C say."""
_SPEAKING = ("SafetensorError",)
"""The names of other types of errors whose messages tell."""
_NO_THREADS = ("start new thread", "Resource temporarily unavailable")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ExitCode(IntEnum):
    """The exit codes of the command line; `docs` and the README list the same ones."""

    OK = 0
    INTERNAL_ERROR = 1
    USAGE = 2
    REGRESSION = 3
    INCONCLUSIVE = 4
    DATA = 5
    WEIGHTS = 6
    COVERAGE = 7
    SOME_FAILED = 8
    OUT_OF_MEMORY = 9
    NOT_COMPARABLE = 10
    STALE = 11
    FAULT = 12
    USER_CODE = 13
    INTERRUPTED = 130


LIMIT = 2500
"""The largest number of characters of a message."""


def printable(text: str) -> str:
    """The text on one line, with control characters and lone surrogates as escapes: safe to print to a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class VlbenchError(Exception):
    """A user error: one sentence with the value, the expectation and the remedy, shown without a traceback.

    The message may quote files, so it is made `printable` and shortened in the middle to `LIMIT` characters.
    """

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.USAGE) -> None:
        text = printable(message)
        self.message = text if len(text) <= LIMIT else f"{text[: LIMIT // 2]} ... {text[-LIMIT // 2 :]}"
        super().__init__(self.message)
        self.exit_code = exit_code


class DataError(VlbenchError):
    """Data that is missing, unreadable or not in its format (exit 5)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.DATA)


class CoverageError(VlbenchError):
    """Predictions that do not match the expected ids one to one (exit 7)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.COVERAGE)


def unknown(kind: str, value: str, known: Iterable[str], remedy: str = "") -> VlbenchError:
    """The error for an unknown name, with the nearest known names; case is ignored."""
    names = sorted(known)
    folded = {name.casefold(): name for name in names}
    near = [folded[name] for name in difflib.get_close_matches(value.casefold(), folded, n=2, cutoff=0.5)]
    hint = f"did you mean {' or '.join(repr(name) for name in near)}?" if near else f"known: {', '.join(names)}"
    return VlbenchError(f"unknown {kind} {value!r}: {hint}{f' ({remedy})' if remedy else ''}")


def untrusted_code(model: str, where: str) -> VlbenchError:
    """The error that a model reaches for code that is not trusted. where: the keys that do so, and their file."""
    what = "comes with code of its own" if where.startswith("auto_map ") else "asks for code of the hub"
    return VlbenchError(
        f"{model} {what} ({where}), which is not run unless you trust it: read it, then give --trust-remote-code"
    )


LONGEST = 200
"""The largest number of characters of an item in a message: ids and answers from files may be very long."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error is about memory: some libraries have a type for it, others only a message."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    speaks = isinstance(error, (RuntimeError, OSError, ImportError, SystemError)) or type(error).__name__ in _SPEAKING
    return speaks and any(text in str(error) for text in _NO_MEMORY)


def shortage(error: Exception) -> VlbenchError | None:
    """The user error for an error of a full disk (exit 5), or of memory or threads that ran out (exit 9); else None.

    A user error that blames a file although its reader ran out of memory is one of memory too.
    """
    if any(is_out_of_memory(cause) for cause in causes(error) if not isinstance(cause, VlbenchError)):
        return VlbenchError(
            "out of memory: free some, raise the limit (`ulimit -v`), or use smaller batches, a smaller --size or a "
            "larger machine; then run the same command again",
            ExitCode.OUT_OF_MEMORY,
        )
    if isinstance(error, VlbenchError):
        return None
    if any(text in str(error) for text in _NO_THREADS):
        return VlbenchError(
            "the system allows no more threads or processes: raise its limits (`ulimit -u`, `ulimit -v`), or use fewer "
            "--workers and --threads; then run the same command again",
            ExitCode.OUT_OF_MEMORY,
        )
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        path = f" {error.filename}" if error.filename else ""
        return DataError(f"cannot write{path} ({error.strerror}): free some space, then run the same command again")
    return None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it was raised from or while handling."""
    known = set[int]()
    while error is not None and id(error) not in known:  # `raise error from error` makes a circle
        yield error
        known.add(id(error))
        error = error.__cause__ or error.__context__


def first_five(items: Iterable[str]) -> str:
    """The first five items in sorted order, long ones cut, and the number of others; for messages about ids."""
    listed = sorted(items)
    rest = len(listed) - 5
    return ", ".join(item if len(item) <= LONGEST else f"{item[:LONGEST]}..." for item in listed[:5]) + (
        f" and {rest} more" if rest > 0 else ""
    )


def remedy_of_nan(lr: float | None = None, is_float32: bool = False) -> str:
    """Advice on values that are not finite numbers; the end of a sentence. lr: the learning rate, where it is known."""
    lower = "lower --lr" if lr is None else f"lower --lr ({lr})"
    if is_float32:
        return f"{lower}, or look for numbers in the data (features, boxes) that are not finite"
    if lr is None:
        return f"training has diverged or the precision is too low; {lower} or, with another --dtype, use float32"
    return f"{lower} or use --dtype float32"
