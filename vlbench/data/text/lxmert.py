"""LXMERT's pretraining text: captions and questions about images, from several data sets in one list per file.

A file is a JSON list of `{"img_id": ..., "sentf": {source: [sentence, ...]}, "labelf": {source: [label, ...]}}`,
where a label is `{answer: score, ...}`. Sources with labels (vqa, gqa, visual7w) hold questions, one label for each;
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
"""Questions that an answer must occur for to be part of the vocabulary, as in VQA v2.0."""
_COCO = re.compile(r"COCO_(\w+)_\d+")


@dataclass(frozen=True, slots=True)
class AnswerScores:
    """The scores of the answers to a question; none if the label is empty."""

    values: tuple[tuple[str, float], ...]

    @property
    def consensus(self) -> str:
        """The answer with the highest score, the first of equals."""
        return max(self.values, key=lambda pair: pair[1])[0] if self.values else ""

    def worths(self) -> Mapping[str, float]:
        """Answer -> score, in (0, 1]."""
        return dict(self.values)


def lxmert_task(texts: Sequence[Path], root: Path) -> Task:
    """Return the files as a task for pretraining. `root` is the folder of the TSV region features and the images."""
    card = TaskCard(
        name=NAME,
        title="LXMERT's pretraining text",
        version=1,
        description="captions and questions about images",
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


def text_examples(files: SplitFiles) -> Iterator[Example[Caption | AnswerScores]]:
    """Yield one example per sentence, in the order of the files.

    Raises DataError, with file and entry, if an entry is not of the format, or labels are not one per sentence.
    """
    for name in files.card.files:
        path = files.path(name)
        for number, entry in enumerate(as_list(read_json(path), str(path)), start=1):
            where = f"{path}, entry {number}"
            yield from _sentences(as_object(entry, where), files.root, where)


def _sentences(fields: Fields, root: Path, where: str) -> Iterator[Example[Caption | AnswerScores]]:
    key = text(fields, "img_id", where)
    ref = ImageRef(root / _folder(key) / f"{key}.jpg", key)
    labels = object_at(fields, "labelf", where) if fields.get("labelf") is not None else {}
    sources = object_at(fields, "sentf", where)
    for source in sources:
        sentences = list_at(sources, source, where)
        answers = list_at(labels, source, where) if source in labels else None
        if answers is not None and len(answers) != len(sentences):
            raise DataError(
                f"{where}: {source!r} has {len(sentences)} sentences and {len(answers)} labels where each question has "
                f"one: correct the file or fetch it again"
            )
        for place, sentence in enumerate(sentences):
            if not isinstance(sentence, str):
                raise DataError(f"{where}: sentence {place + 1} of {source!r} is {sentence!r}: expected a string")
            reference = Caption(key) if answers is None else AnswerScores(_scores(answers[place], where))
            yield Example(f"{key}/{source}/{place}", Query((ref,), sentence), reference, key)


def _folder(key: str) -> str:
    """The folder of an image: for COCO that of the year and split, otherwise `images`."""
    match = _COCO.fullmatch(key)
    return match[1] if match else "images"


def _scores(label: object, where: str) -> tuple[tuple[str, float], ...]:
    scores: list[tuple[str, float]] = []
    for answer, score in as_object(label, where).items():
        if not isinstance(score, int | float) or isinstance(score, bool) or not 0 < score <= 1:
            raise DataError(f"{where}: the answer {answer!r} has score {score!r}: expected a number above 0, at most 1")
        scores.append((answer, float(score)))
    return tuple(scores)
