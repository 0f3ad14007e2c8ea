"""From a model that writes and examples to predictions, every id once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from vlbench.core.backbone import Backbone, Generator
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Example
from vlbench.core.results import Prediction
from vlbench.engine.batches import Batches, loader, sequential_blocks
from vlbench.engine.pace import Pace, Timing
from vlbench.heads.generate import GenerateHead


def generate(
    backbone: Backbone, head: GenerateHead, examples: Sequence[Example[Any]], prompt: str, pace: Pace
) -> tuple[list[Prediction], Timing]:
    """Answer the examples in their order. prompt: the task card's, `{text}` stands for the example's text.

    Raises:
        VlbenchError: the model cannot write, or a likelihood is not a number.
        Interrupted: asked to stop.
    """
    if not isinstance(backbone, Generator):
        raise VlbenchError(f"{type(backbone).__name__} writes no text: use --mode finetune")
    device = pace.accelerator.device
    asked = [_prompted(example, prompt) for example in examples]
    blocks = sequential_blocks(len(asked), pace.batch_size)
    timing, predictions = Timing(), list[Prediction]()
    cast(nn.Module, backbone).eval()
    started = time.perf_counter()
    with torch.inference_mode(), pace.accelerator.autocast():
        for batch in loader(Batches(asked, blocks, backbone), pace.workers, device):
            batch = batch.to(device)
            seen = backbone.see(batch.images, batch.slots).take(batch.image_rows)
            read = backbone.read(batch.texts).take(batch.text_rows)
            predictions += head.answer(backbone, seen, read, batch.ids)
            now = time.perf_counter()
            timing.batches.append(now - started)
            timing.examples += len(batch.ids)
            started = now
            pace.step(timing.examples, len(asked))
    return predictions, timing


def _prompted(example: Example[Any], prompt: str) -> Example[Any]:
    return replace(example, query=replace(example.query, text=prompt.replace("{text}", example.query.text)))
