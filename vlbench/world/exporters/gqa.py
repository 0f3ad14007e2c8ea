"""Export the world as GQA 1.2: balanced and all questions with programs, entailments, choices and scene graphs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

from vlbench.core.domain import Domain
from vlbench.world.exporters.gqa_records import (
    choices,
    graph,
    groups_of,
    in_a_line,
    object_ids,
    operations,
    spoken,
    types_of,
)
from vlbench.world.language.entailment import implied
from vlbench.world.language.full_answers import full_answer
from vlbench.world.language.programs import Bigger, Choose, Program, Query, mentioned, solve
from vlbench.world.language.question_sampling import Asked, ask_evenly
from vlbench.world.language.questions import Kind, Wording, say
from vlbench.world.language.topics import draw_program
from vlbench.world.progress import Progress, counted
from vlbench.world.rng import pick, shuffled, stream
from vlbench.world.scenes.pools import Photograph, photographs
from vlbench.world.scenes.scene import SIDE, Scene, Split, Thing

TASK = "gqa"
TIERS: dict[Split, str] = {"train": "train", "dev": "val", "test1": "testdev", "test2": "test"}
SHARES: dict[Kind, int] = {
    "shape_where": 3, "colour_where": 2, "bigger": 2, "same": 2, "different": 2, "exist_where": 5,
    "verify_relation": 5, "choose_relation": 3, "both": 3, "either": 3, "every": 3, "colour_of_all": 2,
    "shape_of_all": 1, "place": 4, "verify_place": 4, "choose_place": 3, "choose": 7, "size": 6, "verify": 10,
    "exist": 9, "shape": 10, "colour": 11,
}  # fmt: skip
"""Percent of the balanced questions, the rarest to be found first."""

PER_PHOTOGRAPH: dict[Split, float] = {"train": 3, "dev": 1.5, "test1": 3.75, "test2": 2}
"""Balanced questions; all questions are about twice as many."""
ENTAILED, REWORDED, UNEVEN = 0.8, 0.1, 0.3
"""For each balanced question so many more that are not: one that it entails, itself in other words, any other one."""

MOST_ASKED = 1000
SHARDS = 10
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Posed:
    """A question under its id; entailed: what follows from its answer; equivalent: the same in any words."""

    id: str
    asked: Asked
    balanced: bool
    entailed: tuple[str, ...]
    equivalent: tuple[str, ...]


def export(
    folder: Path, scenes: Mapping[Split, Sequence[Scene]], domain: Domain, seed: int, progress: Progress
) -> dict[str, int]:
    """Write the task's files to its folder; the pictures lie beside it, and the same questions go with every domain.

    Returns: how many examples each split has, under the task card's names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for split, own in photographs("gqa", scenes, seed).items():
        posed, tier = list(pose(own, split, seed, progress)), TIERS[split]
        counts[tier], counts[f"{tier}_all"] = sum(one.balanced for one in posed), len(posed)
        if split == "test2":
            _write_unanswered(folder, posed)
            counts |= {"challenge": counts[tier], "challenge_all": len(posed), "submission": len(posed)}
        else:
            _write_answered(folder, tier, posed, stream(seed, TASK, "full answers", split))
        if split in ("train", "dev"):
            _write_json(folder / f"{tier}_sceneGraphs.json", {one.name: graph(one, SIDE) for one in own})
    return counts


def pose(own: Sequence[Photograph], split: Split, seed: int, progress: Progress) -> Iterator[Posed]:
    """All questions of a split, picture by picture."""
    rng, total = stream(seed, TASK, split), round(PER_PHOTOGRAPH[split] * len(own))
    balanced: dict[int, list[Asked]] = defaultdict(list)
    for asked in ask_evenly(own, SHARES, total, rng):
        balanced[asked.photograph.number].append(asked)
    for photograph in counted(own, len(own), f"questions of {TASK}, {split}", progress):
        rng = stream(seed, TASK, split, photograph.number)
        even = balanced[photograph.number]
        both = [(asked, True) for asked in even] + [(asked, False) for asked in _others(photograph, even, rng)]
        yield from _linked(shuffled(rng, both))


def _others(photograph: Photograph, balanced: Sequence[Asked], rng: Random) -> list[Asked]:
    """Questions of the same picture whose answers nobody balances."""
    known = {asked.program for asked in balanced}
    found: list[Asked] = []

    def ask(kind: Kind, program: Program, answer: str) -> None:
        known.add(program)
        found.append(Asked(kind, program, say(kind, program, rng), photograph, answer))

    for asked in balanced:
        new = [one for one in implied(asked.program, asked.answer) if one.program not in known]
        if new and rng.random() < ENTAILED:
            ask(*pick(rng, new))
        if rng.random() < REWORDED:
            ask(asked.kind, asked.program, asked.answer)
        if rng.random() < UNEVEN:
            for drawn in islice(_drawn(photograph.scene, rng), 1):
                if drawn[1] not in known:
                    ask(*drawn)
    return found


def _drawn(scene: Scene, rng: Random) -> Iterator[tuple[Kind, Program, str]]:
    """Questions about a scene that have an answer, each kind as likely as its share."""
    deck = [kind for kind, share in SHARES.items() for _ in range(share)]
    for _ in range(_TRIES):
        kind = pick(rng, deck)
        program = draw_program(kind, scene.things, rng)
        answer = program and solve(program, scene)
        if program and answer:
            yield kind, program, answer


def _linked(of_picture: Sequence[tuple[Asked, bool]]) -> Iterator[Posed]:
    """The questions of a picture with ids of their own and with each other's."""
    ids: dict[Program, list[str]] = defaultdict(list)
    named: list[tuple[str, Asked, bool]] = []
    for number, (asked, balanced) in enumerate(of_picture):
        name = f"{asked.photograph.number * MOST_ASKED + number:08d}"
        ids[asked.program].append(name)
        named.append((name, asked, balanced))
    for name, asked, balanced in named:
        equivalent = tuple(ids[asked.program])
        entailed = {other for one in implied(asked.program, asked.answer) for other in ids.get(one.program, ())}
        entailed.update(other for other in equivalent if other != name)
        yield Posed(name, asked, balanced, tuple(sorted(entailed)), equivalent)


def _write_answered(folder: Path, tier: str, posed: Sequence[Posed], rng: Random) -> None:
    records = {one.id: json.dumps(_record(one, rng)) for one in posed}
    _write_members(folder / f"{tier}_balanced_questions.json", records, [one.id for one in posed if one.balanced])
    if tier == "train":
        shards = folder / "train_all_questions"
        shards.mkdir(exist_ok=True)
        for number in range(SHARDS):
            part = [one.id for one in posed[number::SHARDS]]
            _write_members(shards / f"train_all_questions_{number}.json", records, part)
    else:
        _write_members(folder / f"{tier}_all_questions.json", records, list(records))
        _write_json(folder / f"{tier}_choices.json", {one.id: choices(one.asked.program) for one in posed})


def _write_unanswered(folder: Path, posed: Sequence[Posed]) -> None:
    """The splits whose answers are not public; all of them ask the same here."""
    everything = {one.id: _bare(one) for one in posed}
    balanced = {one.id: everything[one.id] for one in posed if one.balanced}
    for tier in ("test", "challenge"):
        _write_json(folder / f"{tier}_balanced_questions.json", balanced)
        _write_json(folder / f"{tier}_all_questions.json", everything)
    _write_json(folder / "submission_all_questions.json", everything)


def _bare(one: Posed) -> dict[str, object]:
    return {
        "question": one.asked.wording.text,
        "imageId": one.asked.photograph.name,
        "isBalanced": one.balanced,
    }


def _record(one: Posed, rng: Random) -> dict[str, object]:
    asked, program = one.asked, one.asked.program
    ids = object_ids(asked.photograph)
    steps, sentence = operations(program, asked.photograph.scene, ids), full_answer(program, asked.answer, rng)
    return {
        "semantic": steps,
        "entailed": one.entailed,
        "equivalent": one.equivalent,
        **_bare(one),
        "groups": groups_of(asked.kind, program),
        "answer": spoken(program, asked.answer),
        "semanticStr": in_a_line(steps),
        "annotations": {
            "answer": _answer_spans(asked, ids),
            "question": _spans(asked.wording, asked, ids),
            "fullAnswer": _spans(sentence, asked, ids),
        },
        "types": types_of(asked.kind, program),
        "fullAnswer": sentence.text,
    }


def _spans(wording: Wording, asked: Asked, ids: Mapping[Thing, str]) -> dict[str, str]:
    """Which word stands for which object, or for the first of several; words for what is not there are left out."""
    found = [things.among(asked.photograph.scene) or [] for things in mentioned(asked.program)]
    return {str(word): ids[found[mention][0]] for word, mention in wording.heads if found[mention]}


def _answer_spans(asked: Asked, ids: Mapping[Thing, str]) -> dict[str, str]:
    """The object that an answer of one word names."""
    scene = asked.photograph.scene
    match asked.program:
        case Query(things, "shape") | Choose(things, "shape", _):
            found = things.among(scene) or []
        case Bigger(first, second):
            found = [thing for things in (first, second) for thing in things.among(scene) or []]
            found = [thing for thing in found if thing.shape == asked.answer]
        case _:
            return {}
    return {"0": ids[found[0]]}


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content) + "\n", encoding="utf-8", newline="\n")


def _write_members(path: Path, records: Mapping[str, str], ids: Sequence[str]) -> None:
    """One JSON object of records that are JSON already: most of them belong to two files."""
    members = ", ".join(f'"{name}": {records[name]}' for name in ids)
    path.write_text(f"{{{members}}}\n", encoding="utf-8", newline="\n")
