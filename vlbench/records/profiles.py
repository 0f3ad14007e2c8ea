"""A profile's folder: `profile.json`, and the raw durations in `times.parquet`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple, get_type_hints

from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.profile import PROFILE_VERSION, ProfileRecord
from vlbench.core.validate import parse
from vlbench.data.cache.folder import atomic_write, cannot_write
from vlbench.data.files.foreign import reading
from vlbench.data.json.document import LARGEST_RECORD, check_size
from vlbench.records.parquet import write_table
from vlbench.records.provenance import without_home

RECORD = "profile.json"
TIMES = "times.parquet"


class RawDuration(NamedTuple):
    """One raw duration, a row of `times.parquet`. stage: a stage of the model, `whole` for the wall-clock time of all
    stages, `pipeline` from files to answers, or a step of a search. batch: the number of examples. round: in each round
    the models are measured one after the other. iteration: from 0 for each model, scenario, stage and batch.
    """

    scenario: str
    model: str
    stage: str
    batch: int
    round: int
    iteration: int
    seconds: float


@contextmanager
def new_folder(parent: Path, name: str) -> Iterator[Path]:
    """Make a new folder `name` below `parent`, or `name-2`, `name-3` ... if it exists. Folders that were made here and
    are still empty at the end of the block are removed. Raises DataError: the folder cannot be made (exit 5).
    """
    missing = [path for path in (parent, *parent.parents) if not path.exists()]
    try:
        for number in count(1):
            folder = parent / (name if number == 1 else f"{name}-{number}")
            with suppress(FileExistsError):
                folder.mkdir(parents=True)  # parents too, every time: another process may have removed an empty one
                break
    except OSError as error:
        _remove_empty(missing)
        raise cannot_write(parent, error) from None
    try:
        yield folder
    finally:
        _remove_empty([folder, *missing])


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, innermost first, up to the first one that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def write_profile(folder: Path, record: ProfileRecord, raw: Sequence[RawDuration]) -> None:
    """Write both files, each in one step. Raises DataError: they cannot be written (exit 5)."""
    import pyarrow as pa

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in get_type_hints(RawDuration).items()])
    text = json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False)
    write_table(folder / TIMES, pa.Table.from_pylist([row._asdict() for row in raw], schema))
    atomic_write(folder / RECORD, without_home(text) + "\n")


def read_profile(path: Path) -> ProfileRecord:
    """The record of a profile given as its folder or its `profile.json`. Raises DataError: there is no profile, or it
    is corrupt or of another version.
    """
    file = path / RECORD if path.is_dir() else path
    if not file.exists():
        raise DataError(f"{path} holds no profile: give a folder that `vlbench profile` wrote")
    with reading(file, "is corrupt", "measure again with `vlbench profile`"):
        check_size(file, LARGEST_RECORD)
        values = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(values, dict) or values.get("profile_version") != PROFILE_VERSION:
        raise DataError(f"{file} is no profile of version {PROFILE_VERSION}: measure again with `vlbench profile`")
    try:
        return parse(ProfileRecord, values, "its fields")
    except VlbenchError as error:
        raise DataError(f"{file} is corrupt ({error.message}): measure again with `vlbench profile`") from None
