"""The end of a process: past threads of plug-ins that still run, and before native threads could abort it."""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from contextlib import suppress
from typing import NoReturn

from vlbench.core.errors import ExitCode


def end_process(code: int) -> NoReturn:
    """End this process with the exit code, once all is closed, whatever threads still run.

    Handlers of atexit (logs, trackers, temporary folders, child processes) run, and open files are flushed. The
    interpreter itself is not taken apart: that waits for threads, and native threads can abort it. Output that cannot
    be written is an error (exit 5) unless its reader has gone.
    """
    atexit._run_exitfuncs()  # private, but Python runs them nowhere else before os._exit
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            pass
        except (OSError, ValueError, AttributeError) as error:  # a full disk; closed or absent streams
            if isinstance(error, OSError):
                code = code or int(ExitCode.DATA)
                _say(f"vlbench: the output cannot be written ({error.strerror or error})\n")
    _flush_files()
    os._exit(code)


def _say(line: str) -> None:
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(line)
        sys.stderr.flush()


def _flush_files() -> None:
    """Write what files that are still open, such as a plug-in's log, hold back; the interpreter would close them."""
    for item in gc.get_objects():
        if issubclass(type(item), io.IOBase):
            with suppress(Exception):  # closed, only to be read, or a class of others that raises anything
                item.flush()
