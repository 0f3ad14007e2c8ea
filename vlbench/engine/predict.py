"""From a learner and examples to predictions, every id once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import torch

from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Example
from vlbench.core.head import Answering
from vlbench.core.results import Prediction
from vlbench.engine.batches import loader, sequential_blocks
from vlbench.engine.learner import Learner
from vlbench.engine.pace import Pace, Timing


def predict(learner: Learner, examples: Sequence[Example[Any]], pace: Pace) -> tuple[list[Prediction], Timing]:
    """Answer the examples in their order, in evaluation mode, without references.

    Batches are cut here once, so the same examples always meet the same neighbours.

    Raises:
        VlbenchError: a score is not a number, naming the example.
        Interrupted: asked to stop.
    """
    head = learner.parts[1]
    device = pace.accelerator.device
    blocks = sequential_blocks(len(examples), pace.batch_size)
    timing, predictions = Timing(), list[Prediction]()
    was_training = learner.training
    learner.eval()
    started = time.perf_counter()
    with torch.inference_mode(), pace.accelerator.autocast():
        for batch in loader(learner.batches(examples, blocks), pace.workers, device):
            output = learner(batch.to(device))
            predictions += cast(Answering, head).finish(output.logits.float().cpu(), batch.ids)
            now = time.perf_counter()
            timing.batches.append(now - started)
            timing.examples += len(batch.ids)
            started = now
            pace.step(timing.examples, len(examples))
    learner.train(was_training)
    if len(predictions) != len(examples):
        raise VlbenchError(f"{len(predictions)} predictions for {len(examples)} examples of {pace.what}")
    return predictions, timing
