"""The answers that a run chooses from, and which of them the head of given weights covers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlbench.core.cards import TaskCard
from vlbench.core.columns import Chosen, columns_of
from vlbench.core.errors import ExitCode, VlbenchError, first_five
from vlbench.core.examples import Examples, is_answered
from vlbench.core.modes import MODES
from vlbench.core.spec import RunSpec
from vlbench.data.text.answers import ANSWERS_FILE, frequent_answers, read_answers
from vlbench.engine.weights.files import PRETRAINED, brought_answers


def labels_of(spec: RunSpec, card: TaskCard, train: Examples, weights: Path | None) -> tuple[str, ...]:
    """The answers that the run chooses from.

    A task with a closed list of labels uses the card's. A task with open answers uses the list of `--answers`, else the
    list that the weights come with or, when a head is trained, the frequent answers of the training examples. Empty
    where the answer is generated as text.

    Raises:
        VlbenchError: `--answers` is given for a closed list, or missing where it is needed (exit 2); the weights do not
            say what their answers mean, or were trained with another list (exit 6).
    """
    if card.min_answer_count is None:
        if spec.answers is not None:
            raise VlbenchError(
                f"--answers {spec.answers} is for tasks with open answers, and {card.name} has none: leave it out"
            )
        return card.labels
    facts = MODES[spec.mode]
    brought = brought_answers(weights) if weights else ()
    if spec.answers is not None:
        given = read_answers(spec.answers)
        if facts.loads_head and brought and brought != given and spec.checkpoint != PRETRAINED:
            raise VlbenchError(
                f"--answers {spec.answers} is not the list that the weights were trained with, {weights}: leave it out",
                ExitCode.WEIGHTS,
            )
        return given
    if spec.answer_by == "text":
        return ()
    if spec.answer_by == "candidates":
        raise VlbenchError(f"--answer-by candidates needs a list of them for {card.name}: give one with --answers")
    if facts.untrained:
        raise VlbenchError(f"--mode zero-shot compares with a list of answers for {card.name}: give one with --answers")
    if facts.trains:
        return frequent_answers(train, card.min_answer_count)
    if not brought:
        fault = f"--checkpoint {spec.checkpoint} brings no {ANSWERS_FILE}, which says"
        if spec.checkpoint == PRETRAINED:
            fault = f"{spec.model} does not say in the id2label of its config.json"
        raise VlbenchError(
            f"{fault} what its answers mean: give the list with --answers, in the order of the head's rows",
            ExitCode.WEIGHTS,
        )
    return brought


def named_rows(spec: RunSpec, labels: tuple[str, ...], weights: Path | None) -> tuple[str, ...]:
    """The answers that the rows of the weights' own head stand for; empty where that is unknown.

    If the weights do not say, the list that the user gave for evaluating them is used.
    """
    brought = brought_answers(weights) if labels and weights else ()
    return brought or (labels if MODES[spec.mode].loads_head and spec.answers is not None else ())


def learnable(card: TaskCard, train: Examples, labels: tuple[str, ...]) -> tuple[Examples, tuple[str, ...]]:
    """The training examples with an answer among the labels, and a note on those left out, as in the papers.

    Raises:
        VlbenchError: no training example has one of the labels.
    """
    if card.min_answer_count is None or not train or not labels:
        return train, ()
    known = frozenset(labels)
    references = columns_of(train).references
    answered = (reference.worths() if is_answered(reference) else () for reference in references)
    rows = [row for row, answers in enumerate(answered) if not known.isdisjoint(answers)]
    if len(rows) == len(train):
        return train, ()
    if not rows:
        raise VlbenchError(
            f"none of the {len(train):,} training examples has one of the {len(labels):,} answers: give other --answers"
        )
    skipped = f"{len(train) - len(rows):,} of {len(train):,} training examples"
    return Chosen(train, rows), (f"{skipped} have none of the {len(labels):,} answers and are left out",)


def match_spelling(wanted: Sequence[str], given: Sequence[str]) -> list[str]:
    """Each wanted answer in the spelling of the given list, matched case-insensitively; unmatched ones unchanged."""
    spellings = {answer.casefold(): answer for answer in given} | {answer: answer for answer in given}
    return [spellings.get(answer, spellings.get(answer.casefold(), answer)) for answer in wanted]


def answerable(labels: tuple[str, ...], given: tuple[str, ...], name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels that a head with rows for the answers `given` can predict, and notes on the differences.

    name: of the model, for messages.

    Raises:
        VlbenchError: exit 6, the head covers fewer than two of the labels.
    """
    known = set(given)
    spellings = match_spelling(labels, given)
    kept = tuple(label for label, spelling in zip(labels, spellings, strict=True) if spelling in known)
    if len(kept) < min(2, len(labels)):
        reason = f"its rows stand for {first_five(given)}" if given else "its config.json names no answers in id2label"
        raise VlbenchError(
            f"the head of {name} answers {len(kept)} of the task's {len(labels):,} answers ({first_five(labels)}): "
            f"{reason}; use --mode finetune, or name them in id2label",
            ExitCode.WEIGHTS,
        )
    missing = sorted(set(labels) - set(kept))
    unused = sorted(known.difference(match_spelling(kept, given)))
    notes: tuple[str, ...] = ()
    if missing:
        notes += (f"{len(missing):,} of {len(labels):,} answers have no row in the head: {first_five(missing)}",)
    if unused:
        rows = f"{len(unused):,} of the head's {len(given):,} rows"
        notes += (f"{rows} stand for no answer here: {first_five(unused)}",)
    return kept, notes
