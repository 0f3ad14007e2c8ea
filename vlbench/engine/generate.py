"""From a model that writes and examples to predictions, every id once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from vlbench.core.examples import Example
from vlbench.core.results import Prediction
from vlbench.engine.batches import loader, sequential_blocks
from vlbench.engine.learner import Learner
from vlbench.engine.pace import Pace, Timing
from vlbench.engine.prompts import PromptBatches


def generate(learner: Learner, examples: Sequence[Example[Any]], pace: Pace) -> tuple[list[Prediction], Timing]:
    """Answer the examples in their order, in evaluation mode, without references.

    Raises:
        VlbenchError: the model cannot write, or a likelihood is not a number.
        Interrupted: asked to stop.
    """
    model, head = learner.writing
    device = pace.accelerator.device
    blocks = sequential_blocks(len(examples), pace.batch_size)
    timing, predictions = Timing(), list[Prediction]()
    was_training = learner.training
    learner.eval()
    started = time.perf_counter()
    with torch.inference_mode(), pace.accelerator.autocast():
        for batch in loader(PromptBatches(examples, blocks, model, head), pace.workers, device):
            predictions += head.answer(model, batch.to(device).prompts, batch.ids)
            now = time.perf_counter()
            timing.batches.append(now - started)
            timing.examples += len(batch.ids)
            started = now
            pace.step(timing.examples, len(examples))
    learner.train(was_training)
    return predictions, timing
