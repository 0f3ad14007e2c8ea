"""Reads VQA's official question and annotation files, and LXMERT's lists of questions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from vlbench._tasks.vqa2.normalise import Memo
from vlbench._tasks.vqa2.reference import UNKNOWN, VqaAnswers, read_answers
from vlbench.core.errors import DataError
from vlbench.data.json.document import as_object, list_at, whole_number
from vlbench.data.json.lines import Fields, text
from vlbench.data.json.stream import elements, is_list, list_entries


class Question(NamedTuple):
    """A question about an image. image: the name of the COCO file, without `.jpg`."""

    number: int
    image: str
    text: str


class Annotation(NamedTuple):
    """The annotation of a question: its answers, and the tags `answer_type` and `question_type`."""

    image: str
    answers: VqaAnswers
    tags: Mapping[str, str]


UNANNOTATED = Annotation("", UNKNOWN, {})
"""Of a question whose answers are not public."""


def read_questions(path: Path, subtype: str) -> Iterator[Question]:
    """Yield the questions of a file about images of one COCO subtype, such as `val2014`, in its order.

    The file is an official one or a list of LXMERT's; only the questions of a list are read, not its labels. Raises
    DataError if the file cannot be read, is of another subtype, or has an entry that its format does not allow.
    """
    images = _image_names(subtype)
    if is_list(path):
        for number, entry in enumerate(elements(path), start=1):
            yield _lxmert_question(entry, subtype, f"{path}, entry {number}")
        return
    for place, entry in enumerate(_entries(path, "questions", subtype), start=1):
        where = f"{path}, question {place}"
        fields = as_object(entry, where)
        number = whole_number(fields, "question_id", where)
        yield Question(number, _image(fields, images, where), text(fields, "question", where))


def read_annotations(path: Path, subtype: str) -> Mapping[int, Annotation]:
    """The official annotations of one COCO subtype, by the number of their question.

    Raises DataError as `read_questions` does, or if a question is annotated twice.
    """
    annotations: dict[int, Annotation] = {}
    images, tags = _image_names(subtype), Memo[tuple[str, str], Mapping[str, str]](_tags)
    for number, entry in enumerate(_entries(path, "annotations", subtype), start=1):
        where = f"{path}, annotation {number}"
        fields = as_object(entry, where)
        question = whole_number(fields, "question_id", where)
        if question in annotations:
            raise DataError(f"{where}: question {question} has two annotations: expected one; fetch the file again")
        given, most = list_at(fields, "answers", where), text(fields, "multiple_choice_answer", where)
        annotations[question] = Annotation(
            image=_image(fields, images, where),
            answers=read_answers(given, most, where),
            tags=tags[text(fields, "answer_type", where), text(fields, "question_type", where)],
        )
    return annotations


def _tags(types: tuple[str, str]) -> Mapping[str, str]:
    return {"answer_type": types[0], "question_type": types[1]}


def _entries(path: Path, key: str, subtype: str) -> Iterator[object]:
    """Yield the entries of an official file, one by one."""
    members: dict[str, object] = {}
    is_checked = False
    for entry in list_entries(path, key, members):
        if not is_checked and "data_subtype" in members:
            _check_subtype(members, key, subtype, path)
            is_checked = True
        yield entry
    _check_subtype(members, key, subtype, path)  # the official files name it before the entries, but need not


def _check_subtype(members: Fields, key: str, subtype: str, path: Path) -> None:
    actual = text(members, "data_subtype", str(path))
    if actual.replace("-dev", "") != subtype:  # the questions of test-dev are about images of test
        mismatch = f"{path} holds {key} of {actual[:60]!r} where those of {subtype!r} are expected"
        raise DataError(f"{mismatch}: give the file of that split")


def _lxmert_question(entry: object, subtype: str, where: str) -> Question:
    fields = as_object(entry, where)
    image = text(fields, "img_id", where)
    if re.fullmatch(rf"COCO_{re.escape(subtype)}_\d{{12}}", image, re.ASCII) is None:
        raise DataError(
            f"{where}: 'img_id' is {image[:60]!r}: expected 'COCO_{subtype}_' and twelve digits; give that list"
        )
    return Question(whole_number(fields, "question_id", where), image, text(fields, "sent", where))


def _image_names(subtype: str) -> Memo[int, str]:
    """COCO's number of an image -> the name of its file, without `.jpg`."""
    return Memo(lambda number: f"COCO_{subtype}_{number:012d}")


def _image(fields: Fields, names: Memo[int, str], where: str) -> str:
    return names[whole_number(fields, "image_id", where)]
