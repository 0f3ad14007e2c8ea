"""From the cards of a task and a model to the head between them."""

from __future__ import annotations

from vlbench.core.cards import HeadLayout, ModelCard, Recipe, TaskCard
from vlbench.core.errors import VlbenchError
from vlbench.heads.base import Head
from vlbench.heads.classify import ClassifyHead, PairHead, SoftHead
from vlbench.heads.dual import DualHead
from vlbench.heads.inputs import PromptInputs
from vlbench.heads.kinds import HeadKind, head_kind
from vlbench.heads.labels import LabelHead
from vlbench.heads.rank import RankHead


def build_prompt_probe(task: TaskCard, width: int, labels: tuple[str, ...]) -> LabelHead:
    """The untrained linear head over one vector of that width per prompt, of a generative model.

    Raises:
        VlbenchError: the task has under two answers.
    """
    _check_labels(task, labels)
    return _classifier(task)(width, labels, HeadLayout(hidden=0), PromptInputs(task.prompt))


def build_head(
    task: TaskCard,
    model: ModelCard,
    width: int,
    labels: tuple[str, ...],
    recipe: Recipe,
    layout: HeadLayout | None = None,
) -> Head:
    """The untrained head for a task over a backbone of that width.

    labels: the answers it chooses from; none where it ranks. recipe: how a head that ranks is trained. layout: of a
    classifier, as `ModelCard.head_layout` says for a size; None takes the model's.

    Raises:
        VlbenchError: the model cannot do the task's output, or the task's card does not fit it.
    """
    possible = [kind for kind in model.outputs if kind in ("classify", "pair", "rank")]
    if task.output not in possible:
        raise VlbenchError(
            f"task {task.name!r} needs output {task.output!r}, and model {model.name!r} can do "
            f"{', '.join(possible) or 'none'}: choose another model (`vlbench list models`)"
        )
    kind = head_kind(model, task)
    if kind is not HeadKind.PAIR and task.images_per_example != 1:
        raise VlbenchError(
            f"task {task.name!r} shows {task.images_per_example} images per example where output {task.output!r} "
            f"takes 1: give it output 'pair' in its card"
        )
    if kind in (HeadKind.DUAL, HeadKind.RANK):
        return DualHead() if kind is HeadKind.DUAL else RankHead(width, recipe)
    _check_labels(task, labels)
    layout = layout or model.head
    if kind is HeadKind.PAIR:
        return PairHead(width, labels, task.images_per_example, layout)
    return _classifier(task)(width, labels, layout)


def _check_labels(task: TaskCard, labels: tuple[str, ...]) -> None:
    if len(labels) < 2:
        raise VlbenchError(
            f"task {task.name!r} has {len(labels)} labels where output {task.output!r} needs at least 2: "
            f"list them in its card, or give it min_answer_count"
        )


def _classifier(task: TaskCard) -> type[ClassifyHead]:
    """For a closed list of labels, or for answers each worth something."""
    return ClassifyHead if task.labels else SoftHead
