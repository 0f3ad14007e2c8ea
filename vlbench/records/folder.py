"""A run's folder: `output_path/<task>/<model>-<size>/<fingerprint>/`. Each file is written as a whole or not at all."""

from __future__ import annotations

import difflib
import errno
import io
import itertools
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import yaml

from vlbench.core.errors import DataError, ExitCode, VlbenchError, first_five
from vlbench.core.paths import expand_home
from vlbench.core.record import SCHEMA_VERSION, RunRecord
from vlbench.core.spec import RunSpec
from vlbench.core.validate import parse
from vlbench.data.cache.folder import atomic_write
from vlbench.data.files.foreign import reading
from vlbench.data.json.document import LARGEST_RECORD, check_size
from vlbench.records.lock import LOCK_NAME
from vlbench.records.provenance import portable, without_home
from vlbench.records.seal import hashes_of, is_intact, seal_of

_RECORD_NAME = "run.json"
_WORK = ("checkpoints", "controls", "shards", "scores")
"""The folders of a run's checkpoints and predictions."""
_PROBE_BYTES = 64 * 1024
"""The free space that a new run folder must have at least, for its record, config and log."""
_MAX_FOLDERS = 2000
"""The number of folders searched for near misses, so that a mistyped path never walks a whole disk."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, with the paths of its files. Use `create` to run and `open` to read."""

    path: Path

    @classmethod
    def of(cls, spec: RunSpec, fingerprint: str, model: str = "") -> RunFolder:
        """The folder of a resolved spec, which may not exist.

        model: the model's name, where the spec has a path; several paths may lead to one model.
        Raises ValueError: the spec is not resolved (it has no size).
        """
        if spec.size is None:
            raise ValueError("the spec has no size: resolve it before making its folder")
        model = f"{_file_name(model or spec.model)}-{_file_name(spec.size)}"
        return cls(expand_home(spec.output_path) / _file_name(spec.task) / model / fingerprint)

    @classmethod
    def create(cls, spec: RunSpec, fingerprint: str, model: str = "") -> RunFolder:
        """As `of`, made if it does not exist.

        Raises VlbenchError: the output path is a file, cannot be written, or its disk is full; new folders are removed.
        """
        folder = cls.of(spec, fingerprint, model)
        new_folders = _make(folder.path)
        try:
            _probe(folder.path)
        except OSError as error:
            _remove_empty(new_folders)
            raise _not_writable(spec.output_path, error) from None
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of a run, given as that folder, as its `run.json`, or as a folder above this run only. Raises
        VlbenchError: there is no run (the message suggests the nearest ones), or there are several.
        """
        path = expand_home(path)
        folder = path.parent if path.name == _RECORD_NAME else path
        return cls(folder if os.path.lexists(folder / _RECORD_NAME) else _only_run(path))

    @property
    def run_json(self) -> Path:
        return self.path / _RECORD_NAME

    @property
    def samples(self) -> Path:
        return self.path / "samples.parquet"

    @property
    def ranks(self) -> Path:
        return self.path / "ranks.parquet"

    @property
    def result_files(self) -> tuple[Path, ...]:
        """The files that scores come from, which a seal counts; attention is computed after the run has ended."""
        return self.samples, self.ranks

    @property
    def attention(self) -> Path:
        return self.path / "attention.parquet"

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best"

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last"

    @overload
    def resolve_path(self, path: Path) -> Path: ...
    @overload
    def resolve_path(self, path: None) -> None: ...
    def resolve_path(self, path: Path | None) -> Path | None:
        """Resolve a path of the record, which may be relative to the working directory of the run. It is searched from
        the current directory, then from the run's folder upwards; else it is returned unchanged.
        """
        if path is None:
            return None
        candidates = (path, *(parent / path for parent in self.path.resolve().parents))
        return next((candidate for candidate in candidates if os.access(candidate, os.R_OK)), path)

    def write_record(self, record: RunRecord) -> RunRecord:
        """Replace `run.json` in one step, with home paths as `~`; seal a finished record. Returns it with the seal.

        Raises VlbenchError: it cannot be written (exit 5); the old one stays.
        Raises DataError: a result file cannot be read.
        Raises ValueError: a number in it is NaN or infinite, which JSON has no form for.
        """
        task = record.task.model_copy(update={"notes": tuple(map(without_home, record.task.notes))})
        is_done = record.status == "done"
        changes = {
            "spec": portable(record.spec),
            "error": without_home(record.error),
            "task": task,
            "files": hashes_of(self.result_files) if is_done else {},
        }
        values = record.model_copy(update=changes).model_dump(mode="json")
        values["seal"] = seal_of(values) if is_done else ""
        atomic_write(self.run_json, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return record.model_copy(update={"files": changes["files"], "seal": values["seal"]})

    def read_record(self) -> RunRecord | None:
        """The record in `run.json`, None if there is no such file. Raises DataError: it is corrupt, or of another
        schema version.
        """
        return read_record_file(self.run_json) if os.path.lexists(self.run_json) else None

    def write_config(self, spec: RunSpec) -> None:
        """Write `config.yaml`, an input of `vlbench run --config`, with home paths as `~/...`."""
        values = portable(spec).model_dump(mode="json", exclude_none=True)
        atomic_write(self.config, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))

    def append_metrics(self, values: Mapping[str, float | int | str]) -> None:
        """Append a JSON line to `metrics.jsonl`, NaN and infinities as strings; an incomplete last line is removed.
        Raises VlbenchError: it cannot be written (exit 5); the earlier lines stay complete.
        """
        plain = {name: _finite_or_text(value) for name, value in values.items()}
        line = (json.dumps(plain, ensure_ascii=False, allow_nan=False) + "\n").encode()
        try:
            _append(self.metrics, line)
        except OSError as error:
            raise _not_writable(self.metrics, error) from None

    def read_metrics(self) -> list[dict[str, float | int | str]]:
        """The complete lines of `metrics.jsonl`; none where it does not exist."""
        if not self.metrics.is_file():
            return []
        lines = self.metrics.read_text(encoding="utf8", errors="replace").splitlines(keepends=True)
        return [values for line in lines if (values := _values(line)) is not None]

    def keep_metrics(self, kept: Callable[[Mapping[str, float | int | str]], bool]) -> None:
        """Remove from `metrics.jsonl` the lines that are not `kept`, and incomplete lines. Raises VlbenchError: it
        cannot be written (exit 5); the lines stay as they were.
        """
        if not self.metrics.is_file():
            return
        lines = self.metrics.read_text(encoding="utf8", errors="replace").splitlines(keepends=True)
        remaining = [line for line in lines if (values := _values(line)) is not None and kept(values)]
        if remaining != lines:
            atomic_write(self.metrics, "".join(remaining))

    def is_empty(self) -> bool:
        """Whether it holds nothing but the lock."""
        return all(entry.name == LOCK_NAME for entry in self.path.iterdir())

    def holds_lock_alone(self) -> bool:
        """Whether it holds the lock only: a run was rejected before any work was done."""
        return (self.path / LOCK_NAME).is_file() and self.is_empty()

    def holds_work(self) -> bool:
        """Whether the run has trained, predicted or scored anything."""
        paths = (self.metrics, self.samples, self.ranks, *(self.path / name for name in _WORK))
        return any(path.exists() for path in paths)

    def clear(self) -> None:
        """Remove everything but the lock, for a run that starts over (`--no-resume`)."""
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != LOCK_NAME:
                entry.unlink()


def read_run(path: Path) -> RunRecord:
    """The record of a run given as its folder or its `run.json`. Raises VlbenchError: no run there (the message
    suggests the nearest ones), or its record is corrupt or of another version.
    """
    folder = RunFolder.open(path)
    record = folder.read_record()
    if record is None:
        raise _no_run(path)
    return record


def read_record_file(path: Path) -> RunRecord:
    """The record in a `run.json`, or in a copy of one under another name. Raises DataError: it cannot be read, is
    corrupt, or of another schema version.
    """
    with reading(path, "is corrupt", "delete the folder or rerun with --no-resume"):
        check_size(path, LARGEST_RECORD)
        values = json.loads(path.read_text(encoding="utf-8"))
        intact = not isinstance(values, dict) or is_intact(values)
    if not isinstance(values, dict):
        raise corrupt_file(path, "it holds no JSON object")
    if values.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema_version {values.get('schema_version')!r} where this vlbench reads "
            f"{SCHEMA_VERSION}: read it with the vlbench that wrote it, or rerun with --no-resume"
        )
    if not intact:
        raise corrupt_file(path, "its content does not fit its seal, so it was edited or damaged")
    try:
        return parse(RunRecord, values, "its fields")
    except VlbenchError as error:
        raise corrupt_file(path, error.message) from None


def find_runs(root: Path) -> list[Path]:
    """The run folders at or below `root`, sorted, without hidden folders; empty if `root` does not exist."""
    return sorted(_runs(os.walk(root)))


def corrupt_file(path: Path, why: str) -> DataError:
    """The error for a file of a run's folder that is not as vlbench writes it."""
    return DataError(f"{path} is corrupt ({why}): delete the folder or rerun with --no-resume")


def _file_name(name: str) -> str:
    """A name as one path component: a model given as `path/to/file.py:Class` stays inside the output folder."""
    return re.sub(r"[^\w.-]+", "_", name).lstrip(".") or "_"


def _make(path: Path) -> list[Path]:
    """Make the folder and return the new folders, innermost first."""
    missing: list[Path] = []
    try:
        missing += [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove_empty(missing)
        raise _not_writable(path, error) from None
    return missing


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove new folders that hold nothing, innermost first: other processes may have written to them."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _probe(path: Path) -> None:
    """Write a small file as a test: a full disk should fail now, not after an hour of training. Raises OSError: it
    cannot be written.
    """
    with tempfile.TemporaryFile(dir=path) as file:
        file.write(bytes(_PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())


def _values(line: str) -> dict[str, float | int | str] | None:
    """The values in a line of metrics, None if a killed writer left it incomplete."""
    try:
        values = json.loads(line)
    except json.JSONDecodeError:
        return None
    return values if line.endswith("\n") and isinstance(values, dict) else None


def _append(path: Path, line: bytes) -> None:
    with path.open("ab+", buffering=0) as file:
        end = _end_of_lines(file)
        file.truncate(end)
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(end)
            raise


def _end_of_lines(file: io.FileIO) -> int:
    """The offset after the last newline: a killed writer may have left an incomplete line."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if file.read(1) in (b"", b"\n"):
        return size
    file.seek(0)
    return file.readall().rfind(b"\n") + 1


def _finite_or_text(value: float | int | str) -> float | int | str:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _not_writable(path: Path, error: OSError) -> VlbenchError:
    file = next((part for part in (path, *path.parents) if part.is_file()), None)
    reason = f"{file} is a file" if file and file != path else error.strerror or str(error)
    return VlbenchError(
        f"{path} cannot be written ({reason}): give an --output-path that you may write to, with enough free space",
        ExitCode.DATA,
    )


def _runs(walk: Iterable[tuple[str, list[str], list[str]]]) -> Iterator[Path]:
    for folder, below, files in walk:
        if _RECORD_NAME in files or _RECORD_NAME in below:
            yield Path(folder)
            below.clear()
        below[:] = [name for name in below if not name.startswith(".")]


def _only_run(path: Path) -> Path:
    """The only run below `path`. Raises VlbenchError: there is none, or there are several."""
    walk = os.walk(path)
    inside = list(_runs(itertools.islice(walk, _MAX_FOLDERS)))
    if len(inside) == 1 and next(walk, None) is None:
        return inside[0]
    if inside:
        raise VlbenchError(f"{path} holds several folders, expected one run: give {first_five(map(str, inside))}")
    raise _no_run(path)


def _no_run(path: Path) -> VlbenchError:
    """The error for a path without a run; it suggests runs with similar names."""
    if path.is_file():
        return VlbenchError(
            f"{path} is a file, and a record alone has no samples: give the folder of its run, with run.json and "
            f"samples.parquet"
        )
    existing = next((parent for parent in path.parents if parent.is_dir()), Path())
    others = list(map(str, _runs(itertools.islice(os.walk(existing), _MAX_FOLDERS))))
    near = difflib.get_close_matches(str(path), others, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "give a run's folder or its run.json"
    return VlbenchError(f"{path} holds no run (a folder with run.json): {hint}")
