"""What a user can get wrong, said in one sentence, with the exit code the shell sees."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum

_NO_MEMORY = ("out of memory", "DefaultCPUAllocator")


class ExitCode(IntEnum):
    """The exit codes of the command line; `docs` and the README list the same ones."""

    OK = 0
    BUG = 1
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
    INTERRUPTED = 130


ENDLESS = 2500
"""Characters that no sentence needs."""


def printable(text: str) -> str:
    """One line that cannot steer a terminal: control characters and halves of characters as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class VlbenchError(Exception):
    """A user's fault: one sentence with the value, the expectation and the remedy; never a traceback.

    What came from files is in it, so it is made `printable`, and shortened in the middle where it is endless.
    """

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.USAGE) -> None:
        text = printable(message)
        self.message = text if len(text) <= ENDLESS else f"{text[: ENDLESS // 2]} ... {text[-ENDLESS // 2 :]}"
        super().__init__(self.message)
        self.exit_code = exit_code


class DataError(VlbenchError):
    """Data missing, unreadable or not what its format promises (exit 5)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.DATA)


class CoverageError(VlbenchError):
    """Predictions that do not cover the expected ids one to one (exit 7)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.COVERAGE)


def unknown(kind: str, value: str, known: Iterable[str], remedy: str = "") -> VlbenchError:
    """The error for a name nobody knows, with the nearest known names, whatever letters are capital."""
    names = sorted(known)
    folded = {name.casefold(): name for name in names}
    near = [folded[name] for name in difflib.get_close_matches(value.casefold(), folded, n=2, cutoff=0.5)]
    hint = f"did you mean {' or '.join(repr(name) for name in near)}?" if near else f"known: {', '.join(names)}"
    return VlbenchError(f"unknown {kind} {value!r}: {hint}{f' ({remedy})' if remedy else ''}")


LONGEST = 200
"""Characters of an item in a message: an id or an answer from elsewhere may have a hundred thousand."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory did not suffice: torch has a type for it on GPUs, and on CPUs words alone."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def first_five(items: Iterable[str]) -> str:
    """Name the first five items, long ones cut, and how many more there are, for messages about ids and files."""
    listed = sorted(items)
    rest = len(listed) - 5
    return ", ".join(item if len(item) <= LONGEST else f"{item[:LONGEST]}..." for item in listed[:5]) + (
        f" and {rest} more" if rest > 0 else ""
    )
