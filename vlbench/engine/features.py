"""Region features of a split, written where runs look for them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vlbench.core.errors import DataError, VlbenchError, first_five
from vlbench.core.progress import Progress
from vlbench.core.task import Task
from vlbench.data.regions.tsv import write_tsv
from vlbench.engine.extractors import Describe
from vlbench.engine.resources import unique_refs


def free_places(folder: Path, splits: Sequence[str], overwrite: bool) -> dict[str, Path]:
    """The file of each split, in LXMERT's format: `folder/<split>.tsv`.

    Raises:
        VlbenchError: one is there already, and is not to be overwritten.
    """
    found = {split: folder / f"{split}.tsv" for split in splits}
    there = [str(path) for path in found.values() if path.exists()]
    if there and not overwrite:
        raise VlbenchError(f"{first_five(there)} would be lost: give another --output, or --overwrite")
    return found


def write_features(task: Task, split: str, path: Path, describe: Describe, progress: Progress) -> int:
    """Describe the split's pictures in a file; returns how many they are.

    Raises:
        DataError: a picture cannot be read, or the file cannot be written.
    """
    refs = unique_refs(task.load(split))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make {path.parent} ({error.strerror}): give another --output") from None
    write_tsv(path, describe(refs, partial(progress.step, f"extracting regions of {split}")))
    return len(refs)
