"""Commands in forked processes that are killed at, or fail at, a named call to the file system.

A point is named by moment, call, path and number, such as `before replace runs/run.json #2`; process ids and random
parts of paths are masked, so that the same command passes the same points each time.
"""

from __future__ import annotations

import builtins
import errno
import importlib
import io
import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors import safe_open
from torch import Tensor

CALLS = ("fsync", "rename", "replace", "unlink", "remove", "rmdir", "mkdir")
"""The functions of `os` that change what survives a crash; pathlib, shutil and tempfile call them too."""
WRITES = ("open", "fsync", "rename", "replace", "mkdir")
"""The calls that fail on a full disk; `open` for writing only."""
TIMES = ("seconds", "started", "efficiency", "sha256_of_record", "seal")
"""Fields of JSON files that differ from run to run."""
_MASKS = (
    (r"\d+-[0-9a-f]{8}\b", "PID"),
    (r"\b[0-9a-f]{64}\b", "HASH"),
    (r"\.[0-9a-f]{8}\.part", ".RANDOM.part"),
    (r"#\d+ ", ""),
)

ALLOCATIONS = (
    *(f"numpy.{name}" for name in ("array", "asarray", "concatenate", "empty", "frombuffer", "full", "stack", "zeros")),
    *(f"torch.{name}" for name in ("arange", "cat", "empty", "full", "ones", "stack", "tensor", "zeros")),
    *("torch.nn.functional.linear", "torch.nn.functional.embedding", "torch.nn.functional.layer_norm"),
    *("pyarrow.array", "pyarrow.table", "pyarrow.parquet.read_table", "pyarrow.parquet.write_table"),
)
"""Functions that allocate most of the memory."""
_NO_MEMORY: dict[str, Callable[[], Exception]] = {
    "numpy": lambda: MemoryError("Unable to allocate 1. GiB"),
    "torch": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    "pyarrow": lambda: pa.ArrowMemoryError("malloc of size 64 failed"),
}
"""What the libraries raise."""

Hook = Callable[[str], None]
"""Called with the name of each point that a process reaches."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, negative for a signal, what it wrote, and the CPU seconds it took."""

    code: int
    out: str
    err: str
    cpu: float


@dataclass(frozen=True)
class Case:
    """A command line in a folder of its own, which `prepare` fills before each run."""

    folder: Path
    arguments: tuple[object, ...]
    prepare: Callable[[Path], None] = lambda folder: None

    def reset(self) -> None:
        """Empty the folder and fill it anew."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "tmp").mkdir(parents=True)
        self.prepare(self.folder)

    def run(self, before: Callable[[], None] | None = None) -> Ended:
        """Run the command in a forked process that calls `before` first; cache and temporary files are in the folder.

        Waits until the process has ended, and reaps it.
        """
        streams = self.folder.with_name(f"{self.folder.name}.out"), self.folder.with_name(f"{self.folder.name}.err")
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            self._in_child(streams, before)
        _, status, usage = os.wait4(child, 0)
        out, err = (stream.read_text(encoding="utf8", errors="replace") for stream in streams)
        return Ended(os.waitstatus_to_exitcode(status), out, err, usage.ru_utime + usage.ru_stime)

    def _in_child(self, streams: tuple[Path, Path], before: Callable[[], None] | None) -> None:
        code = 99
        try:
            import tempfile

            for number, stream in enumerate(streams, start=1):
                os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            os.environ |= {"VLBENCH_CACHE": str(self.folder / "cache"), "TMPDIR": str(self.folder / "tmp")}
            tempfile.tempdir = None
            from vlbench.cli.main import main
            from vlbench.data.cache import folder

            folder._UNSETTLED = -1  # hashes are remembered at once, not only of files that are two seconds old
            if before is not None:
                before()
            code = main([str(argument) for argument in self.arguments])
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)  # nothing of the parent is torn down

    def left(self) -> dict[str, object]:
        """Every file and empty folder below, with its content as far as it is the same in each run."""
        return {
            masked(path, self.folder): content(path)
            for path in sorted(self.folder.rglob("*"))
            if not path.is_dir() or not any(path.iterdir())
            if path.parent.name != "sha256" and path.name != "log.txt"  # hashes by time and inode; what was said
        }

    def points(self, calls: tuple[str, ...] = CALLS, whens: tuple[str, ...] = ("before", "after")) -> list[str]:
        """The points that the command passes, in order; without calls, its allocations. It must succeed."""
        log = self.folder.with_name(f"{self.folder.name}.points")
        log.unlink(missing_ok=True)
        self.reset()

        def before() -> None:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            note = partial(_note, descriptor)
            watch(self.folder, note, calls, whens) if calls else watch_allocations(note)

        ended = self.run(before)
        assert ended.code == 0, ended.err
        return log.read_text(encoding="utf8").splitlines()

    def kill(self, point: str) -> Ended:
        """Run the command until it reaches the point, where it is killed without warning."""
        return self.run(lambda: watch(self.folder, lambda name: _kill() if name == point else None))

    def fill_disk(self, number: int) -> Ended:
        """Run the command on a disk that is full at its call with this number that needs space."""

        def fail(_: str) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return self.run(lambda: watch(self.folder, _at(number, fail), WRITES, ("before",)))

    def fill_memory(self, number: int) -> Ended:
        """Run the command on a machine whose memory is full at its allocation with this number."""

        def fail(point: str) -> None:
            raise _NO_MEMORY[point.partition(".")[0]]()

        return self.run(lambda: watch_allocations(_at(number, fail)))


def _note(descriptor: int, point: str) -> None:
    os.write(descriptor, f"{point}\n".encode())


def _at(number: int, hook: Hook) -> Hook:
    """A hook that acts only when it is called for this time."""
    reached = iter(range(1, sys.maxsize))
    return lambda point: hook(point) if next(reached) == number else None


def watch_allocations(hook: Hook) -> None:
    """Call the hook before every large allocation that goes through one of `ALLOCATIONS`, until this process ends."""
    counts: Counter[str] = Counter()

    def wrapped(name: str, whole: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            hook(f"{name} #{counts[name]}")
            return whole(*arguments, **options)

        return called

    for name in ALLOCATIONS:
        module, _, function = name.rpartition(".")
        owner = importlib.import_module(module)
        setattr(owner, function, wrapped(name, getattr(owner, function)))


def watch(
    folder: Path, hook: Hook, calls: tuple[str, ...] = CALLS, whens: tuple[str, ...] = ("before", "after")
) -> None:
    """Call the hook around every one of these calls on paths below the folder, in this process until it ends."""
    counts: Counter[str] = Counter()

    def reach(when: str, call: str, path: str) -> None:
        if when in whens:
            name = f"{when} {call} {path}"
            counts[name] += 1
            hook(f"{name} #{counts[name]}")

    def wrapped(call: str, whole: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            path = _path(call, arguments, options)
            if path is None or not path.is_relative_to(folder):
                return whole(*arguments, **options)
            reach("before", call, name := masked(path, folder))
            result = whole(*arguments, **options)
            reach("after", call, name)
            return result

        return called

    for call in calls:
        if call == "open":
            builtins.open = io.open = wrapped(call, io.open)
        else:
            setattr(os, call, wrapped(call, getattr(os, call)))


def _path(call: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Path | None:
    """The path that a call is about: the target of a rename; None for one that only reads."""
    if call == "fsync":
        return Path(f"/proc/self/fd/{arguments[0]}").readlink()
    if call == "open":
        mode = options.get("mode", arguments[1] if len(arguments) > 1 else "r")
        return None if not set(mode) & set("wxa+") or isinstance(arguments[0], int) else Path(arguments[0])
    path = os.fsdecode(arguments[1 if call in ("rename", "replace") else 0])
    if options.get("dir_fd") is not None:
        return Path(f"/proc/self/fd/{options['dir_fd']}").readlink() / path
    return Path.cwd() / path


def masked(path: Path, folder: Path) -> str:
    """The path below the folder, without process ids and random parts."""
    name = path.relative_to(folder).as_posix()
    for pattern, mask in _MASKS:
        name = re.sub(pattern, mask, name)
    return name


def content(path: Path) -> object:
    """What a file holds, without the times in it."""
    if path.is_dir():
        return "folder"
    if path.name == ".lock":
        return "any"
    if path.name in ("run.json", "card.json", "baseline.json"):
        return untimed(json.loads(path.read_text(encoding="utf8")))
    if path.name == "metrics.jsonl":
        return [untimed(json.loads(line)) for line in path.read_text(encoding="utf8").splitlines()]
    if path.suffix == ".safetensors":  # whose header lists metadata in any order
        with safe_open(path, "pt") as file:
            return file.metadata(), {name: _bytes(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    return sha256(path.read_bytes()).hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.numpy().tobytes()


def untimed(value: object) -> object:
    """A JSON value without the fields that hold times."""
    if isinstance(value, dict):
        return {name: untimed(inner) for name, inner in value.items() if name not in TIMES}
    return [untimed(inner) for inner in value] if isinstance(value, list) else value


def differences(left: dict[str, object], expected: dict[str, object]) -> list[str]:
    """The names of files that are missing, left over, or of another content."""
    return [
        f"{'left over' if name not in expected else 'missing' if name not in left else 'other content'}: {name}"
        for name in sorted(left.keys() | expected.keys())
        if left.get(name) != expected.get(name)
    ]


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    while True:  # the signal may be delivered a moment later, to another thread
        time.sleep(1)


def lost(case: Case, points: Iterable[str], expected: dict[str, object]) -> Iterator[str]:
    """The points after whose kill the same command does not end as if nothing had happened, with the reason."""
    for point in points:
        case.reset()
        killed = case.kill(point)
        again = case.run()
        found = differences(case.left(), expected)
        if killed.code != -signal.SIGKILL:
            yield f"{point}: not reached, exit {killed.code}: {killed.err[-500:]}"
        elif again.code != 0 or found:
            yield f"{point}: {found}, exit {again.code}: {again.err[-500:]}"


def broken(
    case: Case, faults: Iterable[tuple[str, Callable[[], Ended]]], codes: tuple[int, ...], expected: dict[str, object]
) -> Iterator[str]:
    """The faults that do not end the command with a sentence, or after which the same command does not succeed."""
    for fault, run in faults:
        case.reset()
        ended = run()
        if ended.code not in (0, *codes) or "Traceback" in ended.err or (ended.code and not ended.err):
            yield f"{fault}: exit {ended.code}: {ended.err[-3000:]}"
            continue
        again = case.run()
        if again.code != 0:
            yield f"{fault} (exit {ended.code}), then exit {again.code}: {again.err[-1000:]}"
        elif found := differences(case.left(), expected):
            yield f"{fault} (exit {ended.code}, {ended.err[-200:]}): {found}"
