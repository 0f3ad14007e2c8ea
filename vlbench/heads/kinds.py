"""Which head a model needs for a task, and the stages of its forward pass: by their cards alone, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from vlbench.core.cards import ModelCard, TaskCard

ENCODE = ("see", "read")
"""Names of the stages that encode images and texts."""


class HeadKind(StrEnum):
    """A head; `vlbench.heads` has one class per kind."""

    CLASSIFY = "classify"
    SOFT = "soft"
    PAIR = "pair"
    RANK = "rank"
    DUAL = "dual"
    GENERATE = "generate"

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages of a forward pass."""
        return _STAGES.get(self, (*ENCODE, "fuse", "head"))


_STAGES: Mapping[HeadKind, tuple[str, ...]] = {
    HeadKind.DUAL: (*ENCODE, "head"),
    HeadKind.GENERATE: ("generate",),
}


def head_kind(model: ModelCard, task: TaskCard) -> HeadKind:
    """The head that answers the task after finetuning."""
    if takes_prompts(model, task):
        return HeadKind.GENERATE
    if task.output == "rank":
        return HeadKind.DUAL if model.ranks_by == "dual" else HeadKind.RANK
    if task.output == "pair":
        return HeadKind.PAIR
    return HeadKind.CLASSIFY if task.labels else HeadKind.SOFT


def takes_prompts(model: ModelCard, task: TaskCard) -> bool:
    """Whether the model takes the task's examples as prompts, since it has no features of pairs."""
    return "generate" in model.outputs and not task.is_retrieval and task.output not in model.outputs
