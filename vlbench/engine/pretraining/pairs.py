"""The training data of a pretraining: the images and texts of one or several tasks."""

from __future__ import annotations

from collections.abc import Sequence

from vlbench.core.cards import TaskCard
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Example, is_answered
from vlbench.core.progress import Progress
from vlbench.core.spec import PretrainSpec
from vlbench.core.splits import NONE, split_tuple
from vlbench.core.task import Task, ids_of
from vlbench.data.cache.index import Joined
from vlbench.data.splits.verify import manifest
from vlbench.data.text.answers import frequent_answers
from vlbench.data.text.lxmert import lxmert_task
from vlbench.engine.source import load_task
from vlbench.engine.split_overlap import check_unique_ids


class Pairs(Joined):
    """The examples of several tasks, concatenated; read on access. splits: of each task, the same for all."""

    def __init__(self, tasks: Sequence[Task], splits: tuple[str, ...], by_task: Sequence[Joined]) -> None:
        super().__init__(by_task)
        self.tasks, self.splits, self.by_task = tuple(tasks), splits, tuple(by_task)

    def manifests(self) -> dict[str, str]:
        """The hash of each task's data, by the task's name."""
        return {
            task.card.name: manifest(task, dict(zip(self.splits, examples.parts, strict=True)))
            for task, examples in zip(self.tasks, self.by_task, strict=True)
        }

    def answers(self) -> tuple[str, ...]:
        """The answers that a classifier over the questions' answers covers; empty where no text is a question."""
        counts = [count for task in self.tasks if (count := task.card.min_answer_count) is not None]
        return frequent_answers(self, min(counts)) if counts else ()


def load_pairs(spec: PretrainSpec, progress: Progress) -> Pairs:
    """Load the splits of each task, and the files of `--texts`.

    Raises:
        VlbenchError: `--texts` without a data root, a task whose texts do not each describe one image, a split that a
            task is evaluated on, or two splits of a task that hold the same example.
    """
    splits = split_tuple(spec.split) or (NONE,)  # no task has a split of that name: loading it is an error
    tasks = tuple(_load(name, splits, spec, progress) for name in spec.task or ())
    if spec.texts:
        if spec.data_root is None:
            raise VlbenchError("--texts needs --data-root: the folder with the TSV files or images of its texts")
        tasks += (lxmert_task(spec.texts, spec.data_root),)
    return Pairs(tasks, splits, tuple(_examples(task, splits) for task in tasks))


def _examples(task: Task, splits: tuple[str, ...]) -> Joined:
    parts = {split: task.load(split) for split in splits}
    check_unique_ids("--split", {split: set(ids_of(examples)) for split, examples in parts.items()})
    return Joined([*parts.values()])


def _check_not_evaluated(card: TaskCard, split: str) -> None:
    """Reject splits that the task selects or reports on, and splits that the card declares as overlapping them."""
    for evaluated in (card.select_on, card.report_split):
        if split == evaluated or (split in card.splits and card.overlap(split, evaluated)):
            on = "it" if split == evaluated else f"{evaluated}, which overlaps it"
            raise VlbenchError(
                f"--split {split}: {card.name} is evaluated on {on}, so nothing may learn from it: "
                f"take {card.train_split}"
            )


def answer_scores(example: Example[object]) -> dict[str, float]:
    """The score of each accepted answer; empty where the text is not a question."""
    return dict(example.reference.worths()) if is_answered(example.reference) else {}


def _load(name: str, splits: tuple[str, ...], spec: PretrainSpec, progress: Progress) -> Task:
    """Load a task whose texts each describe, or ask about, one image."""
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
            f"--task {name}: its texts need not be true of one image, expected captions or questions: take a "
            f"retrieval task, vqa2 or gqa"
        )
    for split in splits:
        _check_not_evaluated(task.card, split)
    return task
