"""From a model that writes and examples to predictions, every id once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlbench.core.examples import Example
from vlbench.core.results import Prediction
from vlbench.engine.batching.prediction_shards import Shards
from vlbench.engine.batching.prompts import PromptBatch, PromptBatches
from vlbench.engine.evaluators.learner import Learner
from vlbench.engine.evaluators.predict import Work, answer_all
from vlbench.engine.runtime.progress_timing import Pace, Timing


def generate(
    learner: Learner, examples: Sequence[Example[Any]], pace: Pace, shards: Shards | None = None
) -> tuple[list[Prediction], Timing]:
    """Answer the examples in their order, in evaluation mode, without references; the rest as `answer_all`.

    Raises:
        VlbenchError: the model cannot write, or a likelihood is not a number.
    """
    model, head = learner.writing

    def answer(batch: PromptBatch) -> list[Prediction]:
        return head.answer(model, batch.to(pace.accelerator.device).prompts, batch.ids)

    work = Work(lambda blocks: PromptBatches(examples, blocks, model, head), answer)
    return answer_all(learner, examples, work, pace, shards)
