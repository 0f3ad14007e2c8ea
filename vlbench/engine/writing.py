"""What is decided for a model that writes before it is loaded: how it answers, and which examples it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Literal

from vlbench.core.cards import ModelCard, TaskCard
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Answered, Example
from vlbench.core.spec import RunSpec
from vlbench.core.splits import joined
from vlbench.engine.capabilities import writes


def answer_by(spec: RunSpec, task: TaskCard, model: ModelCard, probed: bool) -> Literal["text", "candidates"] | None:
    """In its own words, or with the likeliest candidate, which is the default where there is a list of them.

    probed: whether the run begins with a linear head that was trained on the task, which answers then.

    Raises:
        VlbenchError: asked of a model that does not write in that mode, or for its own words and a list at once.
    """
    if writes(model, task, spec.mode) and not probed:
        if spec.answer_by == "text" and spec.answers is not None:
            raise VlbenchError(
                f"--answer-by text does not choose from a list, and --answers {spec.answers} is one: leave one of them "
                f"out"
            )
        return spec.answer_by or ("candidates" if task.labels or spec.answers else "text")
    if spec.answer_by is not None:
        raise VlbenchError(
            f"--answer-by {spec.answer_by} is for a model that writes zero-shot, not for {model.name} in --mode "
            f"{spec.mode}: leave it out"
        )
    return None


def check_shots(spec: RunSpec, task: TaskCard, model: ModelCard) -> None:
    """Examples can be shown to a model that writes, where it is not trained on them."""
    if spec.num_fewshot and (spec.mode == "finetune" or not writes(model, task, spec.mode)):
        raise VlbenchError(
            f"--num-fewshot {spec.num_fewshot} is for a model that writes zero-shot, not for {model.name} in --mode "
            f"{spec.mode} on {task.name}: leave it out"
        )


def draw_shots(spec: RunSpec, train: Sequence[Example[Any]]) -> tuple[Example[Any], ...]:
    """The examples of the train split that are shown, the same before every question; drawn by the seed.

    Raises:
        VlbenchError: there are not so many with an answer.
    """
    if not spec.num_fewshot:
        return ()
    order = Random(f"{spec.seed}/shots").sample(range(len(train)), len(train))
    answered = (train[row] for row in order if _has_answer(train[row]))
    shots = tuple(example for example, _ in zip(answered, range(spec.num_fewshot), strict=False))
    if len(shots) < spec.num_fewshot:
        raise VlbenchError(
            f"--num-fewshot {spec.num_fewshot} is more than the {len(shots):,} examples of "
            f"{joined(spec.train_split)!r} that have an answer: give fewer, or another --train-split"
        )
    return shots


def _has_answer(example: Example[Any]) -> bool:
    return isinstance(example.reference, Answered) and bool(example.reference.consensus)
