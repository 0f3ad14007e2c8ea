"""Region features of a split, written where runs look for them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from vlbench.core.errors import DataError
from vlbench.core.progress import Progress
from vlbench.core.task import Task
from vlbench.data.regions.tsv import write_tsv
from vlbench.engine.extractors import Describe
from vlbench.engine.resources import unique_refs


def write_features(task: Task, split: str, folder: Path, describe: Describe, progress: Progress) -> Path:
    """Describe the split's pictures; returns `folder/<split>.tsv` in LXMERT's format.

    Raises:
        DataError: a picture cannot be read, or the file cannot be written.
    """
    refs = unique_refs(task.load(split))
    path = folder / f"{split}.tsv"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make {folder} ({error.strerror}): give another --output") from None
    write_tsv(path, describe(refs, partial(progress.step, f"extracting regions of {split}")))
    return path
