"""VQA v2.0's official files to examples: a picture, a question, ten answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlbench._tasks.vqa2.questions import Annotation, Question, read_annotations, read_questions
from vlbench._tasks.vqa2.reference import UNKNOWN, VqaAnswers
from vlbench.core.errors import DataError
from vlbench.core.examples import Example, ImageRef, Query
from vlbench.core.task import SplitFiles


def examples(files: SplitFiles) -> Iterator[Example[VqaAnswers]]:
    """One example per question, in the order of the questions file; the group is the picture.

    Splits whose answers are not public have references without answers, and no tags.

    Raises:
        DataError: a file that is not what the official format promises, or of another split, entry named.
    """
    asked, images = files.path("questions"), files.place("images")
    subtype = images.name  # the folder of a COCO picture says which part of COCO it is of, as its file name does
    annotated = "annotations" in files.card.files
    annotations = read_annotations(files.path("annotations"), subtype) if annotated else {}
    for question in read_questions(asked, subtype):
        annotation = annotations.get(question.id)
        if annotated and (annotation is None or annotation.picture != question.picture):
            raise DataError(
                f"{asked}: question {question.id} about {question.picture} has no annotation in "
                f"{files.path('annotations')}: give questions and annotations of one split"
            )
        yield _example(question, annotation, images)


def _example(question: Question, annotation: Annotation | None, images: Path) -> Example[VqaAnswers]:
    return Example(
        id=question.id,
        query=Query((ImageRef(images / f"{question.picture}.jpg", question.picture),), question.text),
        reference=annotation.answers if annotation else UNKNOWN,
        group=question.picture,
        tags={"answer_type": annotation.answer_type, "question_type": annotation.question_type} if annotation else {},
    )
