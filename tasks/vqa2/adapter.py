"""VQA v2.0: reads the official files; an example is an image, a question and ten answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlbench._tasks.vqa2.questions import Annotation, Question, read_annotations, read_questions
from vlbench._tasks.vqa2.reference import UNKNOWN, VqaAnswers
from vlbench.core.errors import DataError
from vlbench.core.examples import Example, ImageRef, Query
from vlbench.core.task import SplitFiles


def examples(files: SplitFiles) -> Iterator[Example[VqaAnswers]]:
    """Yield one example per question, in the order of the questions file; the group is the image.

    Splits whose answers are not public have references without answers, and no tags. Raises DataError if a file does
    not have the official format, or is of another split; the message names the entry.
    """
    path, images = files.path("questions"), files.place("images")
    subtype = images.name  # the folder of a COCO image names its part of COCO, as its file name does
    annotated = "annotations" in files.card.files
    annotations = read_annotations(files.path("annotations"), subtype) if annotated else {}
    for question in read_questions(path, subtype):
        annotation = annotations.get(question.id)
        if annotated and (annotation is None or annotation.image != question.image):
            raise DataError(
                f"{path}: question {question.id} about {question.image} has no annotation in "
                f"{files.path('annotations')}: give questions and annotations of one split"
            )
        yield _example(question, annotation, images)


def _example(question: Question, annotation: Annotation | None, images: Path) -> Example[VqaAnswers]:
    return Example(
        id=question.id,
        query=Query((ImageRef(images / f"{question.image}.jpg", question.image),), question.text),
        reference=annotation.answers if annotation else UNKNOWN,
        group=question.image,
        tags={"answer_type": annotation.answer_type, "question_type": annotation.question_type} if annotation else {},
    )
