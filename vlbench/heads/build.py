"""Build the head that a model needs for a task, from their cards."""

from __future__ import annotations

from vlbench.core.cards import HeadLayout, ModelCard, Recipe, TaskCard
from vlbench.core.errors import VlbenchError
from vlbench.heads.base import Head
from vlbench.heads.classify import ClassifyHead, SoftHead
from vlbench.heads.dual import DualHead
from vlbench.heads.inputs import PromptInputs
from vlbench.heads.kinds import HeadKind, head_kind
from vlbench.heads.rank import RankHead


def build_prompt_probe(task: TaskCard, width: int, labels: tuple[str, ...]) -> ClassifyHead:
    """The untrained linear head over one vector of that width per prompt; a VlbenchError with under two answers."""
    return _build_classifier(task, width, labels, HeadLayout(hidden=0), inputs=PromptInputs(task.prompt))


def build_head(
    task: TaskCard,
    model: ModelCard,
    width: int,
    labels: tuple[str, ...],
    recipe: Recipe,
    layout: HeadLayout | None = None,
) -> Head:
    """The untrained head for a task over a backbone of that width.

    labels: of a classifier. recipe: of the training of a cross-encoder's head. layout: of a classifier, as
    `ModelCard.head_layout` returns it for a size; None takes the model's.

    Raises:
        VlbenchError: the model cannot do the task's output, or the task's card does not fit it.
    """
    possible = [kind for kind in model.outputs if kind in ("classify", "pair", "rank")]
    if task.output not in possible:
        raise VlbenchError(
            f"task {task.name!r} needs output {task.output!r}, and model {model.name!r} can do "
            f"{', '.join(possible) or 'none'}: choose another model (`vlbench list models`)"
        )
    if task.output != "pair" and task.images_per_example != 1:
        raise VlbenchError(
            f"task {task.name!r} shows {task.images_per_example} images per example where output {task.output!r} "
            f"takes 1: give it output 'pair' in its card"
        )
    if task.is_retrieval:
        return DualHead() if head_kind(model, task) is HeadKind.DUAL else RankHead(width, recipe)
    return _build_classifier(task, width, labels, layout or model.head, task.images_per_example)


def _build_classifier(
    task: TaskCard,
    width: int,
    labels: tuple[str, ...],
    layout: HeadLayout,
    images: int = 1,
    inputs: PromptInputs | None = None,
) -> ClassifyHead:
    """A classifier over a closed list of labels, or over open answers, each worth something."""
    if len(labels) < 2:
        raise VlbenchError(
            f"task {task.name!r} has {len(labels)} labels where output {task.output!r} needs at least 2: "
            f"list them in its card, or give it min_answer_count"
        )
    return (ClassifyHead if task.labels else SoftHead)(width, labels, layout, images, inputs)
