"""What in the pictures a learner's answers attend to, example by example, without references.

Shapes: B examples, P pairs of a batch, R visual tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from vlbench.core.backbone import Attentive
from vlbench.core.batch import PairBatch
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Examples
from vlbench.core.progress import Progress
from vlbench.engine.batching.batches import Batches, answering_blocks, loader
from vlbench.engine.learner import Learner
from vlbench.heads.forward import encode_pairs
from vlbench.records.attention import Attended


def attended(
    learner: Learner,
    examples: Examples,
    answers: Mapping[str, str],
    batch_size: int,
    device: torch.device,
    progress: Progress,
) -> dict[str, list[Attended]]:
    """The attention of each example by its id, in evaluation mode.

    Args:
        learner: one whose backbone is Attentive, on the device.
        examples: asked.
        answers: example id -> what it was answered with. An example that is answered otherwise now, as another device
            may do where two answers are nearly tied, is left out: it would be the attention of another answer. Ids
            that are not among these are not answered anew.
        batch_size: examples per forward.
        device: to compute on.
        progress: shown after each batch.
    """
    blocks = answering_blocks(examples, batch_size)
    batches = Batches(examples, blocks, learner.model, learner.head)
    found: dict[str, list[Attended]] = {}
    learner.eval()
    with torch.inference_mode():
        for number, (batch, block) in enumerate(zip(loader(batches, 0, device), blocks, strict=True), start=1):
            ready = batch.to(device)
            if not isinstance(ready, PairBatch):
                raise VlbenchError(f"{type(learner.backbone).__name__} takes prompts: leave out --attention")
            same = _answered_so(learner, ready, answers)
            of_batch = _of_batch(learner, ready, [examples[row] for row in block])
            found |= {name: rows for name, rows in of_batch if name in same}
            progress.step("attending", number, len(blocks))
    return found


def _answered_so(learner: Learner, batch: PairBatch, answers: Mapping[str, str]) -> set[str]:
    """The ids of the batch that are answered as before, or that nothing is known of."""
    unknown = {name for name in batch.ids if name not in answers}
    if len(unknown) == len(batch.ids):
        return unknown
    logits = learner(batch).logits.float().cpu()
    predictions = learner.head.finish(logits, batch.ids)
    return unknown | {again.example_id for again in predictions if answers.get(again.example_id) == again.answer}


def _of_batch(learner: Learner, batch: PairBatch, examples: Examples) -> Iterator[tuple[str, list[Attended]]]:
    model = learner.backbone
    if not isinstance(model, Attentive):
        raise TypeError(f"{type(model).__name__} gives no attention")
    visual, textual = encode_pairs(learner.model, batch)
    weights = model.attend(visual, textual).float().cpu()  # [P, R]
    boxes = model.places(batch.images)[batch.image_rows].float().cpu()  # [P, R, 4]
    real = visual.mask.cpu() & (boxes != 0).any(dim=-1)
    pairs = iter(range(len(weights)))
    for example in examples:
        rows = [
            Attended(example.id, place, weights[pair][real[pair]].numpy(), boxes[pair][real[pair]].numpy())
            for place, pair in enumerate(pair for _, pair in zip(example.query.images, pairs, strict=False))
        ]
        yield example.id, rows
