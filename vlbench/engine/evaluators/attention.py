"""The regions of images that a learner's answers attend to, without references.

Shapes: P pairs of a batch, R visual tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from vlbench.core.backbone import Attentive
from vlbench.core.batch import PairBatch
from vlbench.core.columns import take
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Examples
from vlbench.core.progress import Progress
from vlbench.engine.batching.batches import Batches, answering_blocks, loader
from vlbench.engine.learner import Learner
from vlbench.heads.forward import encode_pairs
from vlbench.records.attention import Attended


def compute_attention(
    learner: Learner,
    examples: Examples,
    answers: Mapping[str, str],
    batch_size: int,
    device: torch.device,
    progress: Progress,
) -> dict[str, list[Attended]]:
    """The attention of each example by its id, in evaluation mode: weights [R] and boxes [R, 4] per image.

    learner: on the device, with an `Attentive` backbone. answers: example id -> recorded answer. An example that gets
    another answer now, as may happen on another device where two answers are nearly tied, is left out; examples
    without a recorded answer are not answered again. batch_size: examples per forward pass.
    """
    blocks = answering_blocks(examples, batch_size)
    batches = Batches(examples, blocks, learner.model, learner.head)
    attention: dict[str, list[Attended]] = {}
    learner.eval()
    with torch.inference_mode():
        for number, (batch, block) in enumerate(zip(loader(batches, 0, device), blocks, strict=True), start=1):
            ready = batch.to(device)
            if not isinstance(ready, PairBatch):
                raise VlbenchError(f"{type(learner.backbone).__name__} takes prompts: leave out --attention")
            unchanged = _unchanged(learner, ready, answers)
            of_batch = _of_batch(learner, ready, take(examples, block))
            attention |= {name: rows for name, rows in of_batch if name in unchanged}
            progress.step("attending", number, len(blocks))
    return attention


def _unchanged(learner: Learner, batch: PairBatch, answers: Mapping[str, str]) -> set[str]:
    """The ids of the batch that get their recorded answer again, or that have none."""
    unknown = {name for name in batch.ids if name not in answers}
    if len(unknown) == len(batch.ids):
        return unknown
    logits = learner(batch).logits.float().cpu()
    predictions = learner.head.finish(logits, batch.ids)
    return unknown | {item.example_id for item in predictions if answers.get(item.example_id) == item.answer}


def _of_batch(learner: Learner, batch: PairBatch, examples: Examples) -> Iterator[tuple[str, list[Attended]]]:
    """The attention of each example of the batch, one item per image, with its id."""
    model = learner.backbone
    if not isinstance(model, Attentive):
        raise TypeError(f"{type(model).__name__} gives no attention")
    visual, textual = encode_pairs(learner.model, batch)
    weights = model.attend(visual, textual).float().cpu()  # [P, R]
    boxes = model.places(batch.images)[batch.image_rows].float().cpu()  # [P, R, 4]
    real = visual.mask.cpu() & (boxes != 0).any(dim=-1)  # [P, R]
    pairs = iter(range(len(weights)))
    for example in examples:
        rows = [
            Attended(example.id, position, weights[pair][real[pair]].numpy(), boxes[pair][real[pair]].numpy())
            for position, (_, pair) in enumerate(zip(example.query.images, pairs, strict=False))
        ]
        yield example.id, rows
