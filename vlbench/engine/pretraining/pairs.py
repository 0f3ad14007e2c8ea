"""What a pretraining learns from: the pictures and texts of one or several tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlbench.core.cards import TaskCard
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Answered, Example
from vlbench.core.progress import Progress
from vlbench.core.spec import PretrainSpec
from vlbench.core.splits import Splits
from vlbench.core.task import Task, ids_of
from vlbench.data.cache.index import Joined
from vlbench.data.splits.verify import manifest
from vlbench.data.text.answers import frequent_answers
from vlbench.data.text.lxmert import lxmert_task
from vlbench.engine.source import load_task
from vlbench.engine.split_overlap import check_unique_ids


class Pairs(Joined):
    """The examples of several tasks, one task and of each one split after the other; read when asked for.

    of_tasks: the examples of each task, its splits in the order of `splits`, which are the same for all.
    """

    def __init__(self, tasks: Sequence[Task], splits: tuple[str, ...], of_tasks: Sequence[Joined]) -> None:
        super().__init__(of_tasks)
        self.tasks, self.splits, self.of_tasks = tuple(tasks), splits, tuple(of_tasks)

    def manifests(self) -> dict[str, str]:
        """A hash of each task's data."""
        return {
            task.card.name: manifest(task, dict(zip(self.splits, part.parts, strict=True)))
            for task, part in zip(self.tasks, self.of_tasks, strict=True)
        }

    def answers(self) -> tuple[str, ...]:
        """What a classifier over the questions' answers knows; empty where no text is a question."""
        counts = [count for task in self.tasks if (count := task.card.min_answer_count) is not None]
        return frequent_answers(self, min(counts)) if counts else ()


def load_pairs(spec: PretrainSpec, progress: Progress) -> Pairs:
    """The splits of each task, and the texts.

    Raises:
        VlbenchError: texts without a data root, a task whose texts do not each describe one image, or
            two splits of a task that hold the same example.
    """
    tasks = tuple(_load(name, spec, progress) for name in spec.task or ())
    if spec.texts:
        if spec.data_root is None:
            raise VlbenchError("--texts needs --data-root: the folder with the TSV files or pictures of its texts")
        tasks += (lxmert_task(spec.texts, spec.data_root),)
    splits = _names(spec.split)
    return Pairs(tasks, splits, tuple(_examples(task, splits) for task in tasks))


def _examples(task: Task, splits: tuple[str, ...]) -> Joined:
    parts = {split: task.load(split) for split in splits}
    check_unique_ids("--split", {split: set(ids_of(examples)) for split, examples in parts.items()})
    return Joined([*parts.values()])


def _check_not_evaluated(card: TaskCard, split: str) -> None:
    """Nothing is learned from splits that are selected or reported on, nor from those that the card says overlap."""
    for evaluated in (card.select_on, card.report_split):
        if split == evaluated or (split in card.splits and card.overlap(split, evaluated)):
            on = "it" if split == evaluated else f"{evaluated}, which overlaps it"
            raise VlbenchError(
                f"--split {split}: {card.name} is evaluated on {on}, so nothing may learn from it: "
                f"take {card.train_split}"
            )


def _names(split: Splits) -> tuple[str, ...]:
    return (split,) if isinstance(split, str) else split


def worths(example: Example[Any]) -> dict[str, float]:
    """What each answer is worth; none where the text is no question."""
    return dict(example.reference.worths()) if isinstance(example.reference, Answered) else {}


def _load(name: str, spec: PretrainSpec, progress: Progress) -> Task:
    task = load_task(
        name,
        spec.data_root,
        domain=spec.domain,
        tasks_dir=spec.tasks_dir,
        allow_partial=spec.allow_partial,
        progress=progress,
    )
    if task.card.labels or task.card.images_per_example != 1:
        raise VlbenchError(
            f"--task {name}: its texts need not be true of one picture, expected captions or questions: take a "
            f"retrieval task, vqa2 or gqa"
        )
    for split in _names(spec.split):
        _check_not_evaluated(task.card, split)
    return task
