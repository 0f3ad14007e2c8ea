"""Reads VQA's official question and annotation files, and LXMERT's lists of questions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vlbench._tasks.vqa2.reference import VqaAnswers, read_answers
from vlbench.core.errors import DataError
from vlbench.data.json.document import as_object, list_at, read_json, whole_number
from vlbench.data.json.lines import Fields, text


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an image. image: the name of the COCO file, without `.jpg`."""

    id: str
    image: str
    text: str


@dataclass(frozen=True, slots=True)
class Annotation:
    """The annotation of a question: its answers, the answer type and the question type."""

    image: str
    answers: VqaAnswers
    answer_type: str
    question_type: str


def read_questions(path: Path, subtype: str) -> Iterator[Question]:
    """Yield the questions of a file about images of one COCO subtype, such as `val2014`, in its order.

    The file is an official one or a list of LXMERT's; only the questions of a list are read, not its labels. Raises
    DataError if the file cannot be read, is of another subtype, or has an entry that its format does not allow.
    """
    content = read_json(path)
    if isinstance(content, list):
        for number, entry in enumerate(content, start=1):
            yield _lxmert_question(entry, subtype, f"{path}, entry {number}")
        return
    for number, entry in enumerate(_entries(content, "questions", subtype, path), start=1):
        where = f"{path}, question {number}"
        fields = as_object(entry, where)
        yield Question(_id(fields, where), _image(fields, subtype, where), text(fields, "question", where))


def read_annotations(path: Path, subtype: str) -> Mapping[str, Annotation]:
    """The official annotations of one COCO subtype, by question id.

    Raises DataError as `read_questions` does, or if a question is annotated twice.
    """
    annotations: dict[str, Annotation] = {}
    content = read_json(path)
    for number, entry in enumerate(_entries(content, "annotations", subtype, path), start=1):
        where = f"{path}, annotation {number}"
        fields = as_object(entry, where)
        question_id = _id(fields, where)
        if question_id in annotations:
            raise DataError(f"{where}: question {question_id} has two annotations: expected one; fetch the file again")
        image = _image(fields, subtype, where)
        given, most = list_at(fields, "answers", where), text(fields, "multiple_choice_answer", where)
        annotations[question_id] = Annotation(
            image=image,
            answers=read_answers(given, most, where),
            answer_type=text(fields, "answer_type", where),
            question_type=text(fields, "question_type", where),
        )
    return annotations


def _entries(content: object, key: str, subtype: str, path: Path) -> Iterator[object]:
    fields = as_object(content, str(path))
    actual = text(fields, "data_subtype", str(path))
    if actual.replace("-dev", "") != subtype:  # the questions of test-dev are about images of test
        mismatch = f"{path} holds {key} of {actual[:60]!r} where those of {subtype!r} are expected"
        raise DataError(f"{mismatch}: give the file of that split")
    return iter(list_at(fields, key, str(path)))


def _lxmert_question(entry: object, subtype: str, where: str) -> Question:
    fields = as_object(entry, where)
    image = text(fields, "img_id", where)
    if re.fullmatch(rf"COCO_{re.escape(subtype)}_\d{{12}}", image, re.ASCII) is None:
        raise DataError(
            f"{where}: 'img_id' is {image[:60]!r}: expected 'COCO_{subtype}_' and twelve digits; give that list"
        )
    return Question(_id(fields, where), image, text(fields, "sent", where))


def _id(fields: Fields, where: str) -> str:
    return str(whole_number(fields, "question_id", where))


def _image(fields: Fields, subtype: str, where: str) -> str:
    return f"COCO_{subtype}_{whole_number(fields, 'image_id', where):012d}"
