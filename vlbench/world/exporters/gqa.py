"""Export the synthetic world as GQA 1.2: questions with programs, entailments and choices, and scene graphs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

from vlbench.world.exporters.gqa_records import (
    answer_text,
    choices,
    format_operations,
    groups_of,
    object_ids,
    operations,
    scene_graph,
    types_of,
)
from vlbench.world.language.entailment import implied
from vlbench.world.language.programs import Bigger, Choose, Program, QueryValue, mentioned, solve
from vlbench.world.language.question_sampling import AskedQuestion, ask_evenly
from vlbench.world.language.questions import QuestionKind, Wording, full_answer, phrase_question
from vlbench.world.language.topics import draw_program
from vlbench.world.output import ProgressCallback, with_progress, write_json, write_text
from vlbench.world.rng import pick, shuffled, stream
from vlbench.world.scenes.images import ImagePlan
from vlbench.world.scenes.pools import Photograph, collect_photographs
from vlbench.world.scenes.scene import SIDE, Scene, Scenes, Split, Thing

TASK = "gqa"
TIERS: dict[Split, str] = {"train": "train", "dev": "val", "test1": "testdev", "test2": "test"}
SHARES: dict[QuestionKind, int] = {
    "shape_where": 3, "colour_where": 2, "bigger": 2, "same": 2, "different": 2, "exist_where": 5,
    "verify_relation": 5, "choose_relation": 3, "both": 3, "either": 3, "every": 3, "colour_of_all": 2,
    "shape_of_all": 1, "place": 4, "verify_place": 4, "choose_place": 3, "choose": 7, "size": 6, "verify": 10,
    "exist": 9, "shape": 10, "colour": 11,
}  # fmt: skip
"""Percent of the balanced questions; the kinds that fit the fewest scenes come first."""

PER_PHOTOGRAPH: dict[Split, float] = {"train": 3, "dev": 1.5, "test1": 3.75, "test2": 2}
"""Balanced questions per photograph; there are about twice as many questions in all."""
ENTAILED, REWORDED, UNEVEN = 0.8, 0.1, 0.3
"""Probabilities that a balanced question adds an unbalanced one: a question it entails, a rewording, any other one."""

MAX_PER_PHOTOGRAPH = 1000
SHARDS = 10
_TRIES = 20


@dataclass(frozen=True, slots=True)
class GqaQuestion:
    """A question of GQA's files.

    entailed: ids of the questions whose answers follow from its answer. equivalent: ids of its rewordings and its own.
    """

    id: str
    asked: AskedQuestion
    balanced: bool
    entailed: tuple[str, ...]
    equivalent: tuple[str, ...]


def export(folder: Path, scenes: Scenes, seed: int, plan: ImagePlan, progress: ProgressCallback) -> dict[str, int]:
    """Write the task's files to its folder. The images are those of the collection `gqa`.

    Returns: the number of examples of each split, under the task card's names.
    """
    counts: dict[str, int] = {}
    for split, photographs in collect_photographs("gqa", scenes, seed).items():
        questions, tier = list(make_questions(photographs, split, seed, progress)), TIERS[split]
        counts[tier], counts[f"{tier}_all"] = sum(question.balanced for question in questions), len(questions)
        if split == "test2":
            _write_unanswered(folder, questions)
            counts |= {"challenge": counts[tier], "challenge_all": len(questions), "submission": len(questions)}
        else:
            _write_answered(folder, tier, questions, stream(seed, TASK, "full answers", split))
        if split in ("train", "dev"):
            graphs = {photograph.name: scene_graph(photograph, SIDE) for photograph in photographs}
            write_json(folder / f"{tier}_sceneGraphs.json", graphs)
    return counts


def make_questions(
    photographs: Sequence[Photograph], split: Split, seed: int, progress: ProgressCallback
) -> Iterator[GqaQuestion]:
    """Yield all questions of a split, photograph by photograph."""
    total = round(PER_PHOTOGRAPH[split] * len(photographs))
    by_photograph: dict[int, list[AskedQuestion]] = defaultdict(list)
    for asked in ask_evenly(photographs, SHARES, total, stream(seed, TASK, split)):
        by_photograph[asked.photograph.number].append(asked)
    for photograph in with_progress(photographs, len(photographs), f"questions of {TASK}, {split}", progress):
        rng = stream(seed, TASK, split, photograph.number)
        balanced = by_photograph[photograph.number]
        unbalanced = _unbalanced_questions(photograph, balanced, rng)
        both = [(asked, True) for asked in balanced] + [(asked, False) for asked in unbalanced]
        yield from _with_ids(shuffled(rng, both))


def _unbalanced_questions(
    photograph: Photograph, balanced: Sequence[AskedQuestion], rng: Random
) -> list[AskedQuestion]:
    """Further questions about the photograph; the distribution of their answers is not balanced."""
    known = {asked.program for asked in balanced}
    unbalanced: list[AskedQuestion] = []

    def ask(kind: QuestionKind, program: Program, answer: str) -> None:
        known.add(program)
        unbalanced.append(AskedQuestion(kind, program, phrase_question(kind, program, rng), photograph, answer))

    for asked in balanced:
        new = [question for question in implied(asked.program, asked.answer) if question.program not in known]
        if new and rng.random() < ENTAILED:
            ask(*pick(rng, new))
        if rng.random() < REWORDED:
            ask(asked.kind, asked.program, asked.answer)
        if rng.random() < UNEVEN:
            for kind, program, answer in islice(_random_questions(photograph.scene, rng), 1):
                if program not in known:
                    ask(kind, program, answer)
    return unbalanced


def _random_questions(scene: Scene, rng: Random) -> Iterator[tuple[QuestionKind, Program, str]]:
    """Random questions about a scene that have an answer; the probability of a kind is its share."""
    deck = [kind for kind, share in SHARES.items() for _ in range(share)]
    for _ in range(_TRIES):
        kind = pick(rng, deck)
        program = draw_program(kind, scene.things, rng)
        answer = program and solve(program, scene)
        if program and answer:
            yield kind, program, answer


def _with_ids(questions: Sequence[tuple[AskedQuestion, bool]]) -> Iterator[GqaQuestion]:
    """Give ids to the questions of one photograph, and refer to the entailed and equivalent ones by id."""
    ids: dict[Program, list[str]] = defaultdict(list)
    with_id: list[tuple[str, AskedQuestion, bool]] = []
    for number, (asked, balanced) in enumerate(questions):
        question_id = f"{asked.photograph.number * MAX_PER_PHOTOGRAPH + number:08d}"
        ids[asked.program].append(question_id)
        with_id.append((question_id, asked, balanced))
    for question_id, asked, balanced in with_id:
        equivalent = tuple(ids[asked.program])
        entailed = {other for follows in implied(asked.program, asked.answer) for other in ids.get(follows.program, ())}
        entailed.update(other for other in equivalent if other != question_id)
        yield GqaQuestion(question_id, asked, balanced, tuple(sorted(entailed)), equivalent)


def _write_answered(folder: Path, tier: str, questions: Sequence[GqaQuestion], rng: Random) -> None:
    records = {question.id: json.dumps(_record(question, rng)) for question in questions}
    balanced = [question.id for question in questions if question.balanced]
    _write_records(folder / f"{tier}_balanced_questions.json", records, balanced)
    if tier == "train":
        for number in range(SHARDS):
            shard = [question.id for question in questions[number::SHARDS]]
            _write_records(folder / "train_all_questions" / f"train_all_questions_{number}.json", records, shard)
    else:
        _write_records(folder / f"{tier}_all_questions.json", records, list(records))
        by_id = {question.id: choices(question.asked.program) for question in questions}
        write_json(folder / f"{tier}_choices.json", by_id)


def _write_unanswered(folder: Path, questions: Sequence[GqaQuestion]) -> None:
    """Write the splits without public answers; here they all have the same questions."""
    everything = {question.id: _unanswered_record(question) for question in questions}
    balanced = {question.id: everything[question.id] for question in questions if question.balanced}
    for tier in ("test", "challenge"):
        write_json(folder / f"{tier}_balanced_questions.json", balanced)
        write_json(folder / f"{tier}_all_questions.json", everything)
    write_json(folder / "submission_all_questions.json", everything)


def _unanswered_record(question: GqaQuestion) -> dict[str, object]:
    return {
        "question": question.asked.wording.text,
        "imageId": question.asked.photograph.name,
        "isBalanced": question.balanced,
    }


def _record(question: GqaQuestion, rng: Random) -> dict[str, object]:
    asked, program = question.asked, question.asked.program
    ids = object_ids(asked.photograph)
    steps, sentence = operations(program, asked.photograph.scene, ids), full_answer(program, asked.answer, rng)
    return {
        "semantic": steps,
        "entailed": question.entailed,
        "equivalent": question.equivalent,
        **_unanswered_record(question),
        "groups": groups_of(asked.kind, program),
        "answer": answer_text(program, asked.answer),
        "semanticStr": format_operations(steps),
        "annotations": {
            "answer": _answer_spans(asked, ids),
            "question": _spans(asked.wording, asked, ids),
            "fullAnswer": _spans(sentence, asked, ids),
        },
        "types": types_of(asked.kind, program),
        "fullAnswer": sentence.text,
    }


def _spans(wording: Wording, asked: AskedQuestion, ids: Mapping[Thing, str]) -> dict[str, str]:
    """Word index -> id of the object it names, or of the first of several; words for absent things are left out."""
    referents = [things.among(asked.photograph.scene) or [] for things in mentioned(asked.program)]
    return {str(word): ids[referents[mention][0]] for word, mention in wording.heads if referents[mention]}


def _answer_spans(asked: AskedQuestion, ids: Mapping[Thing, str]) -> dict[str, str]:
    """The object that a one-word answer names."""
    scene = asked.photograph.scene
    match asked.program:
        case QueryValue(things, "shape") | Choose(things, "shape", _):
            named = things.among(scene) or []
        case Bigger(first, second):
            compared = [thing for things in (first, second) for thing in things.among(scene) or []]
            named = [thing for thing in compared if thing.shape == asked.answer]
        case _:
            return {}
    return {"0": ids[named[0]]}


def _write_records(path: Path, records: Mapping[str, str], ids: Sequence[str]) -> None:
    """Write one JSON object of records that are already encoded, because most of them belong to two files."""
    members = ", ".join(f'"{question_id}": {records[question_id]}' for question_id in ids)
    write_text(path, f"{{{members}}}\n")
