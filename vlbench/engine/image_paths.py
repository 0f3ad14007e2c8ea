"""Where the pictures of a run's examples lie, for a report that is made after it, without torch."""

from __future__ import annotations

import os
from pathlib import Path

from vlbench.core.errors import VlbenchError
from vlbench.core.record import RunRecord
from vlbench.data.cache.folder import cache_folder
from vlbench.engine.source import load_task
from vlbench.records.folder import RunFolder
from vlbench.report.html.thumbnails import PictureFiles
from vlbench.world.generate import is_world, world_folder


def picture_files(folder: RunFolder, record: RunRecord, data_root: Path | None = None) -> PictureFiles:
    """The pictures of a run's split: below `data_root`, else where the run had its data, else in the world.

    A world that has to be made first is not made: the report does without and says so.

    Raises:
        VlbenchError: what was asked for by `data_root` cannot be read.
    """
    spec = record.spec
    root = data_root or folder.resolve_path(spec.data_root)
    named = root or os.environ.get("VLBENCH_DATA")
    if not named and not is_world(world_folder(cache_folder(), spec.domain)):
        return PictureFiles(absent="the built-in world is not in the cache; vlbench data world makes it")
    try:
        tasks_dir = folder.resolve_path(spec.tasks_dir)
        task = load_task(record.task.name, root, domain=spec.domain, tasks_dir=tasks_dir, allow_partial=True)
        examples = task.load(record.task.split)
    except VlbenchError as error:
        if data_root is not None:
            raise
        return PictureFiles(absent=error.message)
    paths = {ref.key: ref.path for example in examples for ref in example.query.images}
    return PictureFiles(paths, {example.id: example.query.text for example in examples})
