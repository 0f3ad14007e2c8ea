"""GQA's official files to examples: a picture, a question, its answer and what the measures need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlbench._tasks.gqa.evidence import read_evidence
from vlbench._tasks.gqa.questions import read_questions
from vlbench._tasks.gqa.reference import GqaAnswer
from vlbench.core.errors import DataError
from vlbench.core.examples import Example, ImageRef, Query
from vlbench.core.task import SplitFiles

KEPT_BACK = ("test", "challenge", "submission")
"""The organisers keep the answers of these."""
SHARDS = 10


def examples(files: SplitFiles) -> Iterator[Example[GqaAnswer]]:
    """One example per question, in the order of the files; the group is the picture.

    Questions that are not balanced have no tags, nor have those of splits whose answers are not public.

    Raises:
        DataError: a file that is not what the official format promises, entry named, or a shard that is missing.
    """
    images, public = files.place("images"), files.split.removesuffix("_all") not in KEPT_BACK
    asked, evidence = _shards(files.path("questions")), read_evidence(files)
    pictures: dict[str, tuple[ImageRef]] = {}
    for path in asked:
        for question in read_questions(path, public, evidence):
            picture = question.picture
            if picture not in pictures:
                pictures[picture] = (ImageRef(images / f"{picture}.jpg", picture),)
            yield Example(question.id, Query(pictures[picture], question.text), question.answer, picture, question.tags)


def _shards(place: Path) -> list[Path]:
    """The file itself, or the official shards of a folder."""
    if not place.is_dir():
        return [place]
    shards = [place / f"{place.name}_{number}.json" for number in range(SHARDS)]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise DataError(f"{place} lacks {', '.join(missing)}: expected {SHARDS} files, so unpack the archive again")
    return shards
