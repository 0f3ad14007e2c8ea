"""Which head a model needs for a task, and the stages of its forward pass: by their cards alone, without torch."""

from __future__ import annotations

from enum import StrEnum

from vlbench.core.cards import ModelCard, TaskCard


class HeadKind(StrEnum):
    """A head; `vlbench.heads` has one module per kind."""

    CLASSIFY = "classify"
    RANK = "rank"
    DUAL = "dual"
    GENERATE = "generate"

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages of a forward pass."""
        if self is HeadKind.GENERATE:
            return ("generate",)
        return ("see", "read", "head") if self is HeadKind.DUAL else ("see", "read", "fuse", "head")


def head_kind(model: ModelCard, task: TaskCard) -> HeadKind:
    """The head that answers the task after finetuning."""
    if takes_prompts(model, task):
        return HeadKind.GENERATE
    if task.is_retrieval:
        return HeadKind.DUAL if model.ranks_by == "dual" else HeadKind.RANK
    return HeadKind.CLASSIFY


def takes_prompts(model: ModelCard, task: TaskCard) -> bool:
    """Whether the model takes the task's examples as prompts, since it has no features of pairs."""
    return "generate" in model.outputs and not task.is_retrieval and task.output not in model.outputs
