"""From the cards of a task and a model to the head between them."""

from __future__ import annotations

from collections.abc import Callable

from vlbench.core.cards import HeadLayout, ModelCard, TaskCard
from vlbench.core.errors import VlbenchError
from vlbench.core.head import Head
from vlbench.heads.classify import ClassifyHead
from vlbench.heads.pair import PairHead


def _classify(task: TaskCard, width: int, layout: HeadLayout) -> Head:
    if task.images_per_example != 1:
        raise VlbenchError(
            f"task {task.name!r} shows {task.images_per_example} pictures per example where output 'classify' "
            f"takes 1: give it output 'pair' in its card"
        )
    return ClassifyHead(width, task.labels, layout)


def _pair(task: TaskCard, width: int, layout: HeadLayout) -> Head:
    return PairHead(width, task.labels, task.images_per_example, layout)


_BUILDERS: dict[str, Callable[[TaskCard, int, HeadLayout], Head]] = {"classify": _classify, "pair": _pair}


def build_head(card: TaskCard, model: ModelCard, width: int) -> Head:
    """The untrained head for a task over a backbone of that width.

    Raises:
        VlbenchError: the model cannot do the task's output, or the task's card does not fit it.
    """
    possible = [kind for kind in model.outputs if kind in _BUILDERS]
    if card.output not in possible:
        raise VlbenchError(
            f"task {card.name!r} needs output {card.output!r}, and model {model.name!r} can do "
            f"{', '.join(possible) or 'none'}: choose another model (`vlbench list models`)"
        )
    if len(card.labels) < 2:
        raise VlbenchError(
            f"task {card.name!r} has {len(card.labels)} labels where output {card.output!r} needs at least 2: "
            f"list them in its card"
        )
    return _BUILDERS[card.output](card, width, model.head)
