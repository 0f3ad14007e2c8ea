"""LXMERT's pretraining text: captions and questions about pictures, of several data sets in one list per file.

A file is a JSON list of `{"img_id": ..., "sentf": {source: [sentence, ...]}, "labelf": {source: [label, ...]}}`,
where a label is `{answer: worth, ...}`. Sources with labels (vqa, gqa, visual7w) hold questions, one label for each;
others (mscoco, vg) hold captions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlbench.core.cards import SplitCard, TaskCard
from vlbench.core.errors import DataError
from vlbench.core.examples import Caption, Example, ImageRef, Query
from vlbench.core.task import SplitFiles, Task
from vlbench.data.cache.index import read_examples
from vlbench.data.json.document import as_list, as_object, list_at, object_at, read_json
from vlbench.data.json.lines import Fields, text

NAME = "lxmert_text"
MIN_ANSWER_COUNT = 9
"""How often an answer must come to be learned, as in VQA v2.0."""
_COCO = re.compile(r"COCO_(\w+)_\d+")


@dataclass(frozen=True, slots=True)
class Worths:
    """What answers to a question are worth; none where the label is empty."""

    values: tuple[tuple[str, float], ...]

    @property
    def consensus(self) -> str:
        """The answer worth most, the first of equals."""
        return max(self.values, key=lambda pair: pair[1])[0] if self.values else ""

    def worths(self) -> Mapping[str, float]:
        """Answer -> worth, in (0, 1]."""
        return dict(self.values)


def lxmert_task(texts: Sequence[Path], root: Path) -> Task:
    """The files as a task to pretrain on. Region features are the TSV files below `root`, pictures lie there too."""
    card = TaskCard(
        name=NAME,
        title="LXMERT's pretraining text",
        version=1,
        description="captions and questions about pictures",
        output="classify",
        images_per_example=1,
        min_answer_count=MIN_ANSWER_COUNT,
        metrics={"none": "none"},
        main_metric="none",
        splits={"train": SplitCard(files={str(path): (str(path.absolute()),) for path in texts})},
        train_split="train",
        select_on="train",
        report_split="train",
        features=("*.tsv", "*/*.tsv"),
        homepage="https://github.com/airsplay/lxmert",
        licence="that of the data sets it is made of",
        citation="Tan and Bansal 2019",
    )
    return Task(card, root, "real", text_examples, {}, reader=read_examples)


def text_examples(files: SplitFiles) -> Iterator[Example[Caption | Worths]]:
    """One example per sentence, in the order of the files.

    Raises:
        DataError: an entry that is not of the format, or labels that are not one per sentence; file and entry named.
    """
    for name in files.card.files:
        path = files.path(name)
        for number, entry in enumerate(as_list(read_json(path), str(path)), start=1):
            where = f"{path}, entry {number}"
            yield from _sentences(as_object(entry, where), files.root, where)


def _sentences(fields: Fields, root: Path, where: str) -> Iterator[Example[Caption | Worths]]:
    key = text(fields, "img_id", where)
    ref = ImageRef(root / _folder(key) / f"{key}.jpg", key)
    labels = object_at(fields, "labelf", where) if fields.get("labelf") is not None else {}
    sources = object_at(fields, "sentf", where)
    for source in sources:
        sentences = list_at(sources, source, where)
        given = list_at(labels, source, where) if source in labels else None
        if given is not None and len(given) != len(sentences):
            raise DataError(
                f"{where}: {source!r} has {len(sentences)} sentences and {len(given)} labels where each question has "
                f"one: mend the file or fetch it again"
            )
        for place, sentence in enumerate(sentences):
            if not isinstance(sentence, str):
                raise DataError(f"{where}: sentence {place + 1} of {source!r} is {sentence!r}: expected a string")
            reference = Caption(key) if given is None else Worths(_worths(given[place], where))
            yield Example(f"{key}/{source}/{place}", Query((ref,), sentence), reference, key)


def _folder(key: str) -> str:
    """Where a picture lies: COCO's in the folder of their year and split, others among `images`."""
    coco = _COCO.fullmatch(key)
    return coco[1] if coco else "images"


def _worths(label: object, where: str) -> tuple[tuple[str, float], ...]:
    values = as_object(label, where)
    for answer, worth in values.items():
        if not isinstance(worth, int | float) or isinstance(worth, bool) or not 0 < worth <= 1:
            raise DataError(f"{where}: the answer {answer!r} is worth {worth!r}: expected a number above 0, at most 1")
    return tuple((answer, float(worth)) for answer, worth in values.items())  # type: ignore[arg-type]  # checked above
