"""Export the world as VQA v2.0: official questions and annotations, ten answers each, and LXMERT's two lists."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlbench.core.domain import Domain
from vlbench.world.language.annotators import spelt_alike, ten_answers
from vlbench.world.language.programs import NO, YES, answers
from vlbench.world.language.question_sampling import Asked, ask_evenly
from vlbench.world.language.questions import Kind
from vlbench.world.progress import Progress, counted
from vlbench.world.rng import stream
from vlbench.world.scenes.pools import COCO_SUBTYPES, photographs
from vlbench.world.scenes.scene import Scene, Split

TASK = "vqa2"
SHARES: dict[Kind, int] = {
    "shape_where": 2, "colour_where": 2, "bigger": 2, "same": 3, "more": 3, "exist_where": 3, "verify_relation": 3,
    "both": 3, "either": 3, "count": 10, "colours": 2, "place": 4, "choose": 6, "size": 6,
    "verify": 8, "exist": 12, "shape": 12, "colour": 16,
}  # fmt: skip
"""Percent of the questions, the rarest to be found first: most are decided by one match of word and thing."""

PER_PHOTOGRAPH: dict[Split, float] = {"train": 3, "dev": 1.5, "test1": 3.75, "test2": 2}
MOST_ASKED = 1000
"""A question's id is its picture's times this, and its number there."""

QUESTION_TYPES = (
    "are", "are the", "are there", "are there any", "are there more", "can", "can a", "can something", "do the",
    "does the", "does the picture", "does the image", "does the photo", "how", "how big", "how large", "how many",
    "in the", "is", "is it true that the", "is the", "is there", "is there a", "is there both", "is there either",
    "is there something", "on which side", "what", "what colour", "what colour are the", "what colour is the",
    "what is", "what is the", "what is the colour of the", "what is the number of", "what is the shape of the",
    "what kind of", "what number of", "what shape", "what shape are the", "what shape is the", "what size",
    "what size is the", "what type of", "which", "which colour", "which shape", "which side", "which size",
)  # fmt: skip
"""The beginnings that sort questions; the longest one counts."""

_INFO = {"description": "Questions about the built-in world, in the format of VQA v2.0", "version": "2.0"}
_LICENCE = {"name": "as vlbench itself"}
_LISTS: dict[Split, str] = {"dev": "nominival", "test1": "minival"}


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with its id and what ten people answer."""

    asked: Asked
    id: int
    typed: Sequence[str]

    @property
    def most(self) -> str:
        """The most frequent answer as typed."""
        return Counter(self.typed).most_common(1)[0][0]


def export(
    folder: Path, scenes: Mapping[Split, Sequence[Scene]], domain: Domain, seed: int, progress: Progress
) -> dict[str, int]:
    """Write the task's files to its folder; the pictures are COCO's, and the same questions go with every domain.

    Returns: how many examples each split has, under the task card's names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[Split, list[Answered]] = {}
    for split, own in photographs("coco", scenes, seed).items():
        rng, total = stream(seed, TASK, split), round(PER_PHOTOGRAPH[split] * len(own))
        asked = list(ask_evenly(own, SHARES, total, rng))
        made[split] = list(counted(_answered(asked, seed), len(asked), f"questions of {TASK}, {split}", progress))
    val = made["dev"] + made["test1"]
    _write_subtype(folder, "train2014", made["train"])
    _write_subtype(folder, "val2014", val)
    for split, name in _LISTS.items():
        _write_json(folder / f"{name}.json", [_lxmert(one, split) for one in made[split]])
    for subtype in ("test-dev2015", "test2015"):
        _write_questions(folder, subtype, made["test2"])
    counts = {"train": len(made["train"]), "val": len(val)}
    counts |= {name: len(made[split]) for split, name in _LISTS.items()}
    return counts | {"test-dev": len(made["test2"]), "test": len(made["test2"])}


def _answered(questions: Iterable[Asked], seed: int) -> Iterator[Answered]:
    """The questions picture by picture, numbered there, with their answers."""
    numbers: Counter[int] = Counter()
    for asked in sorted(questions, key=lambda asked: asked.photograph.number):
        picture = asked.photograph.number
        name = picture * MOST_ASKED + numbers[picture]
        numbers[picture] += 1
        possible = answers(asked.program)
        yield Answered(asked, name, ten_answers(asked.answer, possible, stream(seed, TASK, "answers", name)))


def answer_type(answer: str) -> str:
    """One of the three official types."""
    if answer in (YES, NO):
        return "yes/no"
    return "number" if answer.isdigit() else "other"


def question_type(question: str) -> str:
    """The longest of `QUESTION_TYPES` that the question begins with, or "none of the above"."""
    words = question.lower().rstrip("?").split()
    beginnings = (" ".join(words[:length]) for length in range(len(words), 0, -1))
    return next((beginning for beginning in beginnings if beginning in _KNOWN_TYPES), "none of the above")


_KNOWN_TYPES = frozenset(QUESTION_TYPES)


def _write_subtype(folder: Path, subtype: str, questions: Sequence[Answered]) -> None:
    """Questions and annotations of a part whose answers are public."""
    _write_questions(folder, subtype, questions)
    annotations = [_annotation(one) for one in questions]
    _write_json(
        folder / f"v2_mscoco_{subtype}_annotations.json",
        {
            "info": _INFO,
            "license": _LICENCE,
            "data_subtype": subtype,
            "annotations": annotations,
            "data_type": "mscoco",
        },
    )


def _write_questions(folder: Path, subtype: str, questions: Sequence[Answered]) -> None:
    entries = [
        {"image_id": one.asked.photograph.number, "question": one.asked.wording.text, "question_id": one.id}
        for one in questions
    ]
    _write_json(
        folder / f"v2_OpenEnded_mscoco_{subtype}_questions.json",
        {
            "info": _INFO,
            "task_type": "Open-Ended",
            "data_type": "mscoco",
            "license": _LICENCE,
            "data_subtype": subtype,
            "questions": entries,
        },
    )


def _annotation(one: Answered) -> dict[str, object]:
    return {
        "question_type": question_type(one.asked.wording.text),
        "multiple_choice_answer": one.most,
        "answers": [
            {"answer": answer, "answer_confidence": "yes" if answer == one.most else "maybe", "answer_id": number}
            for number, answer in enumerate(one.typed, start=1)
        ],
        "image_id": one.asked.photograph.number,
        "answer_type": answer_type(one.asked.answer),
        "question_id": one.id,
    }


def _lxmert(one: Answered, split: Split) -> dict[str, object]:
    """A record of LXMERT's lists; its label gives 0.3, 0.6, 0.9 or 1 for one, two, three or at least four people."""
    people = Counter(map(spelt_alike, one.typed))
    return {
        "answer_type": answer_type(one.asked.answer),
        "img_id": f"COCO_{COCO_SUBTYPES[split]}_{one.asked.photograph.number:012d}",
        "label": {answer: min(1.0, 3 * count / 10) for answer, count in people.items()},
        "question_id": one.id,
        "question_type": question_type(one.asked.wording.text),
        "sent": one.asked.wording.text,
    }


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content) + "\n", encoding="utf-8", newline="\n")
