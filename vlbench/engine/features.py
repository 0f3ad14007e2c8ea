"""Region features of a split, written where runs look for them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from vlbench.core.errors import DataError
from vlbench.core.examples import ImageRef
from vlbench.core.progress import Progress
from vlbench.core.task import Task
from vlbench.data.cache import cache_folder
from vlbench.data.regions.extract import FlatExtractor
from vlbench.data.regions.source import extract_all
from vlbench.data.regions.tsv import write_tsv


def write_features(task: Task, split: str, folder: Path, progress: Progress) -> Path:
    """Describe the split's pictures with the weight-free extractor; returns `folder/<split>.tsv` in LXMERT's format.

    Raises:
        DataError: a picture cannot be read, or the file cannot be written.
    """
    refs: dict[str, ImageRef] = {ref.key: ref for example in task.load(split) for ref in example.query.images}
    store = extract_all(
        list(refs.values()), FlatExtractor(), cache_folder(), partial(progress.step, f"extracting regions of {split}")
    )
    path = folder / f"{split}.tsv"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make {folder} ({error.strerror}): give another --output") from None
    write_tsv(path, ((key, store.get(key)) for key in refs))
    return path
