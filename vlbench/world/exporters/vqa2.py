"""Export the synthetic world as VQA v2.0: questions, annotations with ten answers each, and LXMERT's two lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlbench.world.language.annotators import normalise_spelling, ten_answers
from vlbench.world.language.programs import NO, YES, answers
from vlbench.world.language.question_sampling import AskedQuestion, ask_evenly
from vlbench.world.language.questions import QuestionKind
from vlbench.world.output import ProgressCallback, with_progress, write_json
from vlbench.world.rng import stream
from vlbench.world.scenes.images import ImagePlan
from vlbench.world.scenes.pools import COCO_SUBTYPES, collect_photographs
from vlbench.world.scenes.scene import Scenes, Split

TASK = "vqa2"
SHARES: dict[QuestionKind, int] = {
    "shape_where": 2, "colour_where": 2, "bigger": 2, "same": 3, "more": 3, "exist_where": 3, "verify_relation": 3,
    "both": 3, "either": 3, "count": 10, "colours": 2, "place": 4, "choose": 6, "size": 6,
    "verify": 8, "exist": 12, "shape": 12, "colour": 16,
}  # fmt: skip
"""Percent of the questions; the kinds that fit the fewest scenes come first."""

PER_PHOTOGRAPH: dict[Split, float] = {"train": 3, "dev": 1.5, "test1": 3.75, "test2": 2}
MAX_PER_PHOTOGRAPH = 1000
"""A question's id is its image's number times this, plus its own number among the questions about the image."""

QUESTION_TYPES = (
    "are", "are the", "are there", "are there any", "are there more", "can", "can a", "can something", "do the",
    "does the", "does the picture", "does the image", "does the photo", "how", "how big", "how large", "how many",
    "in the", "is", "is it true that the", "is the", "is there", "is there a", "is there both", "is there either",
    "is there something", "on which side", "what", "what colour", "what colour are the", "what colour is the",
    "what is", "what is the", "what is the colour of the", "what is the number of", "what is the shape of the",
    "what kind of", "what number of", "what shape", "what shape are the", "what shape is the", "what size",
    "what size is the", "what type of", "which", "which colour", "which shape", "which side", "which size",
)  # fmt: skip
"""The beginnings that determine a question's type; the longest match counts."""

_INFO = {"description": "Questions about the built-in world, in the format of VQA v2.0", "version": "2.0"}
_LICENCE = {"name": "as vlbench itself"}
_LISTS: dict[Split, str] = {"dev": "nominival", "test1": "minival"}


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """A question with its id and the answers of ten annotators, as typed."""

    asked: AskedQuestion
    id: int
    typed: Sequence[str]

    @property
    def most(self) -> str:
        """The most frequent answer, as typed."""
        return Counter(self.typed).most_common(1)[0][0]


def export(folder: Path, scenes: Scenes, seed: int, plan: ImagePlan, progress: ProgressCallback) -> dict[str, int]:
    """Write the task's files to its folder. The images are those of the collection `coco`.

    Returns: the number of examples of each split, under the task card's names.
    """
    by_split: dict[Split, list[AnsweredQuestion]] = {}
    for split, photographs in collect_photographs("coco", scenes, seed).items():
        total = round(PER_PHOTOGRAPH[split] * len(photographs))
        asked = list(ask_evenly(photographs, SHARES, total, stream(seed, TASK, split)))
        answered = with_progress(_answer_all(asked, seed), len(asked), f"questions of {TASK}, {split}", progress)
        by_split[split] = list(answered)
    train, val, test = by_split["train"], by_split["dev"] + by_split["test1"], by_split["test2"]
    _write_subtype(folder, "train2014", train)
    _write_subtype(folder, "val2014", val)
    for split, name in _LISTS.items():
        write_json(folder / f"{name}.json", [_lxmert_record(question, split) for question in by_split[split]])
    for subtype in ("test-dev2015", "test2015"):
        _write_questions(folder, subtype, test)
    counts = {"train": len(train), "val": len(val)}
    counts |= {name: len(by_split[split]) for split, name in _LISTS.items()}
    return counts | {"test-dev": len(test), "test": len(test)}


def _answer_all(questions: Iterable[AskedQuestion], seed: int) -> Iterator[AnsweredQuestion]:
    """Yield the questions image by image, with their ids and answers."""
    numbers: Counter[int] = Counter()
    for asked in sorted(questions, key=lambda asked: asked.photograph.number):
        image = asked.photograph.number
        question_id = image * MAX_PER_PHOTOGRAPH + numbers[image]
        numbers[image] += 1
        rng = stream(seed, TASK, "answers", question_id)
        yield AnsweredQuestion(asked, question_id, ten_answers(asked.answer, answers(asked.program), rng))


def answer_type(answer: str) -> str:
    """One of the three official types."""
    return "yes/no" if answer in (YES, NO) else "number" if answer.isdigit() else "other"


def question_type(question: str) -> str:
    """The longest of `QUESTION_TYPES` with which the question begins, or "none of the above"."""
    words = question.lower().rstrip("?").split()
    beginnings = (" ".join(words[:length]) for length in range(len(words), 0, -1))
    return next((beginning for beginning in beginnings if beginning in QUESTION_TYPES), "none of the above")


def _write_subtype(folder: Path, subtype: str, questions: Sequence[AnsweredQuestion]) -> None:
    """Write questions and annotations of a part with public answers."""
    _write_questions(folder, subtype, questions)
    content: dict[str, object] = {"info": _INFO, "license": _LICENCE, "data_subtype": subtype}
    content |= {"annotations": list(map(_annotation, questions)), "data_type": "mscoco"}
    write_json(folder / f"v2_mscoco_{subtype}_annotations.json", content)


def _write_questions(folder: Path, subtype: str, questions: Sequence[AnsweredQuestion]) -> None:
    entries = [
        {
            "image_id": question.asked.photograph.number,
            "question": question.asked.wording.text,
            "question_id": question.id,
        }
        for question in questions
    ]
    content: dict[str, object] = {"info": _INFO, "task_type": "Open-Ended", "data_type": "mscoco", "license": _LICENCE}
    content |= {"data_subtype": subtype, "questions": entries}
    write_json(folder / f"v2_OpenEnded_mscoco_{subtype}_questions.json", content)


def _annotation(question: AnsweredQuestion) -> dict[str, object]:
    most = question.most
    return {
        "question_type": question_type(question.asked.wording.text),
        "multiple_choice_answer": most,
        "answers": [
            {"answer": answer, "answer_confidence": "yes" if answer == most else "maybe", "answer_id": number}
            for number, answer in enumerate(question.typed, start=1)
        ],
        "image_id": question.asked.photograph.number,
        "answer_type": answer_type(question.asked.answer),
        "question_id": question.id,
    }


def _lxmert_record(question: AnsweredQuestion, split: Split) -> dict[str, object]:
    """A record of LXMERT's lists; its label is 0.3, 0.6, 0.9 or 1 for one, two, three or at least four annotators."""
    counts = Counter(map(normalise_spelling, question.typed))
    return {
        "answer_type": answer_type(question.asked.answer),
        "img_id": f"COCO_{COCO_SUBTYPES[split]}_{question.asked.photograph.number:012d}",
        "label": {answer: min(1.0, 3 * count / 10) for answer, count in counts.items()},
        "question_id": question.id,
        "question_type": question_type(question.asked.wording.text),
        "sent": question.asked.wording.text,
    }
