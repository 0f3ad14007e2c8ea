"""GQA: reads the official files; an example is an image, a question, its answer and what the metrics need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlbench._tasks.gqa.evidence import read_evidence
from vlbench._tasks.gqa.questions import read_questions
from vlbench._tasks.gqa.reference import GqaAnswer
from vlbench.core.errors import DataError
from vlbench.core.examples import Example, ImageRef, Query
from vlbench.core.task import SplitFiles

UNPUBLISHED = ("test", "challenge", "submission")
"""Splits whose answers are not public."""
SHARDS = 10


def examples(files: SplitFiles) -> Iterator[Example[GqaAnswer]]:
    """Yield one example per question, in the order of the files; the group is the image.

    Questions that are not balanced have no tags, and neither have those of splits without public answers. Raises
    DataError if a file does not have the official format (the message names the entry), or a shard is missing.
    """
    folder, public = files.place("images"), files.split.removesuffix("_all") not in UNPUBLISHED
    paths, evidence = _question_files(files.path("questions")), read_evidence(files)
    images: dict[str, tuple[ImageRef]] = {}
    for path in paths:
        for question in read_questions(path, public, evidence):
            key = question.image
            if key not in images:
                images[key] = (ImageRef(folder / f"{key}.jpg", key),)
            yield Example(question.id, Query(images[key], question.text), question.answer, key, question.tags)


def _question_files(path: Path) -> list[Path]:
    """The file itself, or the official shards in a folder."""
    if not path.is_dir():
        return [path]
    shards = [path / f"{path.name}_{number}.json" for number in range(SHARDS)]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}: expected {SHARDS} files, so unpack the archive again")
    return shards
