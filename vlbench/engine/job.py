"""From what was asked to what will be done: every default filled in, every clash found, before torch is loaded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlbench import __version__, catalog
from vlbench.core.cards import ModelCard, TaskCard
from vlbench.core.errors import ExitCode, VlbenchError, first_five
from vlbench.core.examples import Answered, Example
from vlbench.core.progress import Progress
from vlbench.core.spec import RunSpec
from vlbench.core.task import Task, ids_of
from vlbench.data.answers import ANSWERS_FILE, frequent_answers, read_answers
from vlbench.data.index import Chosen
from vlbench.data.verify import manifest
from vlbench.engine.source import load_task
from vlbench.engine.weights import chosen_weights, weights_sha256
from vlbench.records.fingerprint import fingerprint

Examples = Sequence[Example[Any]]


@dataclass(frozen=True)
class Job:
    """A resolved spec with its task and model card. select is empty where nothing is selected on.

    labels: the answers a classifier chooses from, closed or open; none where the task ranks. notes: what was left out.
    weights: the file begun with; None from scratch.
    """

    spec: RunSpec
    task: Task
    card: ModelCard
    size: str
    train: Examples
    select: Examples
    report: Examples
    n_total: int
    manifest_sha256: str
    weights_sha256: str
    fingerprint: str
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    weights: Path | None = None

    @property
    def unscored(self) -> bool:
        """Whether the reported split's answers are kept by the organisers: it is predicted, not scored."""
        references = (example.reference for example in self.report)
        return all(isinstance(reference, Answered) and not reference.worths() for reference in references)

    @property
    def ranks(self) -> bool:
        """Whether the task ranks a gallery instead of answering its examples one by one."""
        return self.task.card.output == "rank"

    @property
    def threads(self) -> int | None:
        """CPU threads to compute with; None for all."""
        return self.spec.threads or self.card.sizes[self.size].threads


def refusal(spec: RunSpec) -> str:
    """Why the model cannot answer the task in that mode, as far as their cards say; empty where it can.

    Raises:
        VlbenchError: names nobody knows.
    """
    card, task_card = catalog.model_card(spec.model), catalog.task_card(spec.task, spec.tasks_dir)
    if spec.mode == "zero-shot":
        answers = "generate" in card.outputs and task_card.output != "rank"
        return "" if answers else f"{card.name} has no way to answer {task_card.name} zero-shot: use --mode finetune"
    if task_card.output not in card.outputs:
        return f"{card.name} has no head for {task_card.name} ({task_card.output}): it does {', '.join(card.outputs)}"
    return ""


def plan(spec: RunSpec, progress: Progress) -> Job:
    """Resolve a spec.

    Raises:
        VlbenchError: names nobody knows, a model that cannot answer the task, splits that clash.
    """
    card = catalog.model_card(spec.model)
    if reason := refusal(spec):
        raise VlbenchError(reason)
    if spec.size is not None:
        catalog.check_size(card, spec.size)
    task = load_task(
        spec.task,
        spec.data_root,
        domain=spec.domain,
        tasks_dir=spec.tasks_dir,
        allow_partial=spec.allow_partial,
        progress=progress,
    )
    spec = _resolved(spec, task, card)
    train, select, report = (_load(task, split) for split in (spec.train_split, spec.select_on, spec.split))
    _check_apart(spec, train, select, report)
    sha = manifest(task, {str(spec.train_split): train, str(spec.select_on): select, str(spec.split): report})
    weights = chosen_weights(str(spec.checkpoint), card.name, str(spec.size))
    labels = _labels(spec, task.card, train, weights)
    train, notes = _learnable(task.card, train, labels)
    return Job(
        spec=spec,
        task=task,
        card=card,
        size=str(spec.size),
        train=train,
        select=select,
        report=limited(report, spec, whole=task.card.output == "rank"),
        n_total=len(report),
        manifest_sha256=sha,
        weights_sha256=weights_sha256(weights),
        fingerprint=fingerprint(
            spec,
            recipe=spec.train,
            task_version=task.card.version,
            manifest_sha256=sha,
            weights_sha256=weights_sha256(weights),
            vlbench_version=__version__,
        ),
        labels=labels,
        notes=notes,
        weights=weights,
    )


def _resolved(spec: RunSpec, task: Task, card: ModelCard) -> RunSpec:
    """The spec with every default written out, so that the record says what ran."""
    world, trains = task.source == "world", spec.mode == "finetune"
    _check_rerank(spec, task.card, card)
    size = spec.size or ("tiny" if world else "base")
    catalog.check_size(card, size)
    checkpoint = spec.checkpoint or ("shipped" if world and catalog.shipped_weights(card.name, size) else "none")
    if spec.mode == "eval" and checkpoint == "none":
        raise VlbenchError(
            "--mode eval needs --checkpoint with trained weights, and there are none: name a run or a file"
        )
    blind = world and trains and task.card.output != "rank"  # what a ranking is worth without sight is known: chance
    controls = spec.controls if spec.controls is not None else (("blind",) if blind else ())
    if controls and task.card.output == "rank":
        raise VlbenchError(
            f"--controls {','.join(controls)} is not for {task.card.name}: what a ranking is worth without sight is "
            f"chance, which the table shows; leave it out"
        )
    if controls and not trains:
        raise VlbenchError(
            f"--controls {','.join(controls)} are trained, and --mode {spec.mode} trains nothing: leave them out"
        )
    return spec.model_copy(
        update={
            "size": size,
            "checkpoint": checkpoint,
            "train_split": (spec.train_split or task.card.train_split) if trains else "none",
            "select_on": (spec.select_on or task.card.select_on) if trains else "none",
            "split": spec.split or task.card.report_split,
            "controls": controls,
            "answer_by": _answer_by(spec, task.card),
            "train": card.recipe(spec.task, size).merged(spec.train),
        }
    )


def _check_rerank(spec: RunSpec, task: TaskCard, card: ModelCard) -> None:
    """A shortlist is of a gallery, and needs a model that embeds pictures and texts apart and looks at pairs too."""
    if spec.rerank_k is not None and (task.output != "rank" or card.ranks_by == "dual" or not card.embeds):
        able = [
            name
            for name in catalog.model_folders()
            if (one := catalog.model_card(name)).embeds and one.ranks_by == "cross"
        ]
        raise VlbenchError(
            f"--rerank-k {spec.rerank_k} is for retrieval by a model that embeds and looks at pairs "
            f"({', '.join(able)}), not for {card.name} on {task.name}: leave it out"
        )


def _answer_by(spec: RunSpec, card: TaskCard) -> Literal["text", "candidates"] | None:
    if spec.mode == "zero-shot":
        return spec.answer_by or ("candidates" if card.labels else "text")
    if spec.answer_by is not None:
        raise VlbenchError(f"--answer-by {spec.answer_by} is for --mode zero-shot, not for {spec.mode}: leave it out")
    return None


def _labels(spec: RunSpec, card: TaskCard, train: Examples, weights: Path | None) -> tuple[str, ...]:
    """The answers to choose from: the card's; else a given list, the one the weights bring, or the frequent ones."""
    if card.min_answer_count is None:
        if spec.answers is not None:
            raise VlbenchError(
                f"--answers {spec.answers} is for tasks with open answers, and {card.name} has none: leave it out"
            )
        return card.labels
    brought = weights.with_name(ANSWERS_FILE) if weights else None
    if spec.answers is not None:
        given = read_answers(spec.answers)
        if spec.mode == "eval" and brought is not None and brought.is_file() and read_answers(brought) != given:
            raise VlbenchError(
                f"--answers {spec.answers} is not the list that the weights were trained with, {brought}: leave it out",
                ExitCode.WEIGHTS,
            )
        return given
    if spec.answer_by == "text":
        return ()
    if spec.answer_by == "candidates":
        raise VlbenchError(f"--answer-by candidates needs a list of them for {card.name}: give one with --answers")
    if spec.mode == "finetune":
        return frequent_answers(train, card.min_answer_count)
    if brought is None or not brought.is_file():
        raise VlbenchError(
            f"--checkpoint {spec.checkpoint} brings no {ANSWERS_FILE}, which says what its answers mean: "
            f"give the list with --answers",
            ExitCode.WEIGHTS,
        )
    return read_answers(brought)


def _learnable(card: TaskCard, train: Examples, labels: tuple[str, ...]) -> tuple[Examples, tuple[str, ...]]:
    """The training examples with an answer among the labels, and a note on the others, as in the papers."""
    if card.min_answer_count is None or not train:
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


def _load(task: Task, split: str | None) -> Examples:
    return [] if split is None or split == "none" else task.load(split)


def _check_apart(spec: RunSpec, train: Examples, select: Examples, report: Examples) -> None:
    """What is reported was neither trained nor selected on (by id: some official splits are parts of others)."""
    reported = set(ids_of(report))
    for split, examples, remedy in (
        (spec.train_split, train, "give another --train-split"),
        (spec.select_on, select, "give another --select-on, or none for the last checkpoint"),
    ):
        shared = reported.intersection(ids_of(examples))
        if shared:
            raise VlbenchError(
                f"--split {spec.split} shares {len(shared):,} examples with {split!r} ({first_five(shared)}), which "
                f"the model is trained or selected on: {remedy}"
            )


def limited(examples: Examples, spec: RunSpec, whole: bool = False) -> Examples:
    """The part of the reported split that `limit` asks for, in its order; the same whatever the seed.

    whole: picture by picture with all its texts, which is what a limit counts where a gallery is ranked.
    """
    if spec.limit is None:
        return examples
    units: dict[str, list[int]] = {}
    for row, example in enumerate(examples):
        units.setdefault(example.group if whole else example.id, []).append(row)
    wanted = round(spec.limit * len(units)) if spec.limit < 1 else int(spec.limit)
    wanted = max(1, min(wanted, len(units)))
    rows = list(units.values())
    chosen = list(range(wanted))
    if spec.limit_mode == "random":
        chosen = sorted(random.Random(f"limit of {spec.split}").sample(range(len(units)), wanted))
    return [examples[row] for unit in chosen for row in rows[unit]]
