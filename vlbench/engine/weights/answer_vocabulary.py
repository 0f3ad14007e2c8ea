"""Which answers a run chooses from, and what a head that comes along can give of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlbench.core.cards import TaskCard
from vlbench.core.errors import ExitCode, VlbenchError, first_five
from vlbench.core.examples import Example
from vlbench.core.spec import RunSpec
from vlbench.data.cache.index import Chosen
from vlbench.data.text.answers import ANSWERS_FILE, frequent_answers, read_answers
from vlbench.engine.weights.files import brought_answers
from vlbench.engine.weights.pretrained import PRETRAINED

Examples = Sequence[Example[Any]]


def labels_of(spec: RunSpec, card: TaskCard, train: Examples, weights: Path | None) -> tuple[str, ...]:
    """The answers to choose from: the card's; else a given list, the one the weights bring, or the frequent ones."""
    if card.min_answer_count is None:
        if spec.answers is not None:
            raise VlbenchError(
                f"--answers {spec.answers} is for tasks with open answers, and {card.name} has none: leave it out"
            )
        return card.labels
    brought = brought_answers(weights) if weights else ()
    if spec.answers is not None:
        given = read_answers(spec.answers)
        if spec.mode == "eval" and brought and brought != given and spec.checkpoint != PRETRAINED:
            raise VlbenchError(
                f"--answers {spec.answers} is not the list that the weights were trained with, {weights}: leave it out",
                ExitCode.WEIGHTS,
            )
        return given
    if spec.answer_by == "text":
        return ()
    if spec.answer_by == "candidates":
        raise VlbenchError(f"--answer-by candidates needs a list of them for {card.name}: give one with --answers")
    if spec.mode == "zero-shot":
        raise VlbenchError(f"--mode zero-shot compares with a list of answers for {card.name}: give one with --answers")
    if spec.mode in ("finetune", "probe"):
        return frequent_answers(train, card.min_answer_count)
    if not brought:
        silent = f"--checkpoint {spec.checkpoint} brings no {ANSWERS_FILE}, which says"
        if spec.checkpoint == PRETRAINED:
            silent = f"{spec.model} does not say in the id2label of its config.json"
        raise VlbenchError(
            f"{silent} what its answers mean: give the list with --answers, in the order of the head's rows",
            ExitCode.WEIGHTS,
        )
    return brought


def named_rows(spec: RunSpec, labels: tuple[str, ...], weights: Path | None) -> tuple[str, ...]:
    """What the rows of the head that comes along stand for; empty where nothing is said.

    Where the weights say nothing, a list that the user gave for their evaluation is taken for it.
    """
    brought = brought_answers(weights) if labels and weights else ()
    return brought or (labels if spec.mode == "eval" and spec.answers is not None else ())


def learnable(card: TaskCard, train: Examples, labels: tuple[str, ...]) -> tuple[Examples, tuple[str, ...]]:
    """The training examples with an answer among the labels, and a note on the others, as in the papers."""
    if card.min_answer_count is None or not train or not labels:
        return train, ()
    known = frozenset(labels)
    rows = [row for row, example in enumerate(train) if not known.isdisjoint(example.reference.worths())]
    kept = train if len(rows) == len(train) else Chosen(train, rows)
    if not rows:
        raise VlbenchError(
            f"none of the {len(train):,} training examples has one of the {len(labels):,} answers: give other --answers"
        )
    left = len(train) - len(kept)
    note = f"{left:,} of {len(train):,} training examples have none of the {len(labels):,} answers and are left out"
    return kept, (note,) if left else ()


def spelled(wanted: Sequence[str], given: Sequence[str]) -> list[str]:
    """The answers wanted as they are spelled among those given, upper and lower case aside; else as they are."""
    spellings = {answer.casefold(): answer for answer in given} | {answer: answer for answer in given}
    return [spellings.get(answer, spellings.get(answer.casefold(), answer)) for answer in wanted]


def answerable(labels: tuple[str, ...], given: tuple[str, ...], name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those of the labels that a head with rows for the answers `given` can give, and notes on what differs.

    Raises:
        VlbenchError: exit 6, it can give none of them.
    """
    known = set(given)
    kept = tuple(label for label, sought in zip(labels, spelled(labels, given), strict=True) if sought in known)
    if len(kept) < min(2, len(labels)):
        says = f"its rows stand for {first_five(given)}" if given else "its config.json names no answers in id2label"
        raise VlbenchError(
            f"the head of {name} answers {len(kept)} of the task's {len(labels):,} answers ({first_five(labels)}): "
            f"{says}; use --mode finetune, or name them in id2label",
            ExitCode.WEIGHTS,
        )
    lacking = sorted(set(labels) - set(kept))
    idle = sorted(known.difference(spelled(kept, given)))
    notes = []
    if lacking:
        notes.append(f"{len(lacking):,} of {len(labels):,} answers have no row in the head: {first_five(lacking)}")
    if idle:
        notes.append(f"{len(idle):,} of the head's {len(given):,} rows stand for no answer here: {first_five(idle)}")
    return kept, tuple(notes)
