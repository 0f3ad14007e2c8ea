"""What in the pictures a learner's answers attend to, example by example, without references.

Shapes: B examples, P pairs of a batch, R visual tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch

from vlbench.core.backbone import Attentive
from vlbench.core.examples import Example
from vlbench.core.head import Answering
from vlbench.core.progress import Progress
from vlbench.engine.batching.batches import Batch, Batches, answering_blocks, loader
from vlbench.engine.evaluators.learner import Learner
from vlbench.records.attention import Attended


def attended(
    learner: Learner,
    examples: Sequence[Example[Any]],
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
    batches = Batches(examples, blocks, learner.parts[0])
    found: dict[str, list[Attended]] = {}
    learner.eval()
    with torch.inference_mode():
        for number, (batch, block) in enumerate(zip(loader(batches, 0, device), blocks, strict=True), start=1):
            ready = batch.to(device)
            same = _answered_so(learner, ready, answers)
            of_batch = _of_batch(learner, ready, [examples[row] for row in block])
            found |= {name: rows for name, rows in of_batch if name in same}
            progress.step("attending", number, len(blocks))
    return found


def _answered_so(learner: Learner, batch: Batch, answers: Mapping[str, str]) -> set[str]:
    """The ids of the batch that are answered as before, or that nothing is known of."""
    unknown = {name for name in batch.ids if name not in answers}
    if len(unknown) == len(batch.ids):
        return unknown
    logits = learner(batch).logits.float().cpu()
    now = cast(Answering, learner.parts[1]).finish(logits, batch.ids)
    return unknown | {one.example_id for one in now if answers.get(one.example_id) == one.answer}


def _of_batch(learner: Learner, batch: Batch, examples: Sequence[Example[Any]]) -> Iterator[tuple[str, list[Attended]]]:
    backbone = learner.parts[0]
    attentive = cast(Attentive, backbone)
    seen = backbone.see(batch.images, batch.slots).take(batch.image_rows)
    weights = attentive.attend(seen, backbone.read(batch.texts).take(batch.text_rows)).float().cpu()  # [P, R]
    boxes = attentive.places(batch.images)[batch.image_rows].float().cpu()  # [P, R, 4]
    real = seen.mask.cpu() & (boxes != 0).any(dim=-1)
    pairs = iter(range(len(weights)))
    for example in examples:
        rows = [
            Attended(example.id, place, weights[pair][real[pair]].numpy(), boxes[pair][real[pair]].numpy())
            for place, pair in enumerate(pair for _, pair in zip(example.query.images, pairs, strict=False))
        ]
        yield example.id, rows
