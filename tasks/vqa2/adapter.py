"""VQA v2.0: reads the official files; an example is an image, a question and ten answers."""

from __future__ import annotations

from collections.abc import Iterator

from vlbench._tasks.vqa2.normalise import Memo
from vlbench._tasks.vqa2.questions import UNANNOTATED, read_annotations, read_questions
from vlbench._tasks.vqa2.reference import VqaAnswers
from vlbench.core.errors import DataError
from vlbench.core.examples import Example, ImageRef, Query
from vlbench.core.task import SplitFiles


def examples(files: SplitFiles) -> Iterator[Example[VqaAnswers]]:
    """Yield one example per question, in the order of the questions file; the group is the image.

    Splits whose answers are not public have references without answers, and no tags. Raises DataError if a file does
    not have the official format, or is of another split; the message names the entry.
    """
    path, folder = files.path("questions"), files.place("images")
    subtype = folder.name  # the folder of a COCO image names its part of COCO, as its file name does
    annotated = "annotations" in files.card.files
    annotations = read_annotations(files.path("annotations"), subtype) if annotated else {}
    images = Memo[str, tuple[ImageRef]](lambda name: (ImageRef(folder / f"{name}.jpg", name),))
    for question in read_questions(path, subtype):
        annotation = annotations.get(question.number, UNANNOTATED)
        if annotated and annotation.image != question.image:
            raise DataError(
                f"{path}: question {question.number} about {question.image} has no annotation in "
                f"{files.path('annotations')}: give questions and annotations of one split"
            )
        query = Query(images[question.image], question.text)
        yield Example(str(question.number), query, annotation.answers, question.image, annotation.tags)
