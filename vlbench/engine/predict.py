"""From a learner and examples to predictions, every id once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator

from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Example
from vlbench.core.progress import Progress
from vlbench.core.results import Prediction
from vlbench.engine.batches import Batches, loader, sequential_blocks
from vlbench.engine.interrupt import Interrupt
from vlbench.engine.learner import Learner


@dataclass
class Timing:
    """Wall-clock seconds of each batch, preparation included."""

    batches: list[float] = field(default_factory=list)
    examples: int = 0

    @property
    def examples_per_second(self) -> float:
        """Over all batches; 0 where nothing was predicted."""
        return self.examples / sum(self.batches) if self.batches else 0.0


def predict(
    learner: Learner,
    examples: Sequence[Example[Any]],
    accelerator: Accelerator,
    *,
    batch_size: int,
    workers: int,
    progress: Progress,
    interrupt: Interrupt,
    what: str,
) -> tuple[list[Prediction], Timing]:
    """Answer the examples in their order, in evaluation mode, without references.

    Batches are cut here once, so the same examples always meet the same neighbours.

    Raises:
        VlbenchError: a score is not a number, naming the example.
    """
    backbone, head = learner.parts
    blocks = sequential_blocks(len(examples), batch_size)
    timing, predictions = Timing(), list[Prediction]()
    was_training = learner.training
    learner.eval()
    started = time.perf_counter()
    with torch.inference_mode(), accelerator.autocast():
        for batch in loader(Batches(examples, blocks, backbone, None), workers, accelerator.device):
            output = learner(batch.to(accelerator.device))
            predictions += head.finish(output.logits.float().cpu(), batch.ids)
            now = time.perf_counter()
            timing.batches.append(now - started)
            timing.examples += len(batch.ids)
            started = now
            progress.step(what, timing.examples, len(examples))
            interrupt.check()
    learner.train(was_training)
    if len(predictions) != len(examples):
        raise VlbenchError(f"{len(predictions)} predictions for {len(examples)} examples of {what}")
    return predictions, timing
