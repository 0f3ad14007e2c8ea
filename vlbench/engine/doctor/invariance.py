"""Whether an answer depends on its example alone: not on neighbours, order, padding or precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vlbench.core.examples import Example, Examples, ImageRef
from vlbench.engine.doctor.subject import Subject, retold, strangers
from vlbench.engine.doctor.verdict import Check, compared, judged

CPU, GPU = 1e-5, 1e-3
"""Largest difference of float32 scores, per unit of the largest score: sums in another order; of GPUs, TF32 in them."""
BF16 = 0.1
"""Largest difference of bfloat16's scores, as a share of their range: 8 bits of mantissa, through many layers."""
DIFFERENT = 1e-5
"""Scores of other pictures or texts that differ by less, per unit of the largest score, do not differ."""
LONG = 64
"""Words of the text beside which others are padded; models cut what is longer than theirs."""


def check_invariance(subject: Subject, examples: Examples, folder: Path) -> Iterator[Check]:
    """The checks one after the other; folder: for a picture that has to be made.

    Raises:
        VlbenchError: an example that cannot be prepared.
    """
    plain = subject.scores(examples)
    size, unit = subject.batch, float(plain.abs().max().clamp(min=1.0))
    tolerance = unit * (CPU if subject.device.type == "cpu" else GPU)
    alone = subject.scores(examples, batch=1)
    yield compared("batch size", plain, alone, tolerance, f"in batches of {size}, and one by one")
    yield compared("order", plain, subject.scores(examples, backwards=True), tolerance, "in reversed order")
    beside = [companion(examples[0], folder if subject.job.card.visual in ("patches", "grid") else None)]
    padded = subject.scores(examples, beside=beside)
    yield compared("padding", plain, padded, tolerance, "beside a long text and a wide picture in each batch")
    low = subject.scores(examples, dtype=torch.bfloat16)
    yield compared("bfloat16", plain, low, float(plain.max() - plain.min()) * BF16, "in bfloat16 instead of float32")
    yield from _matters(subject, examples, plain, unit * DIFFERENT)


def _matters(subject: Subject, examples: Examples, plain: Tensor, least: float) -> Iterator[Check]:
    """Whether the scores change with the pictures, and with the texts."""
    for name, changed in (("pictures", strangers(examples)), ("texts", retold(examples))):
        if name == "pictures" and subject.job.card.visual == "none":
            yield Check(name=name, verdict="skipped", found="the model looks at no pictures, its card says")
            continue
        if changed == list(examples):
            found = f"all {len(examples)} examples have the same {name}, so none can be exchanged: try more --examples"
            yield Check(name=name, verdict="skipped", found=found)
            continue
        other = subject.scores(changed)
        largest = float((plain - other).abs().nan_to_num().max())
        counts = largest > least
        found = f"under other {name}: scores {'change' if counts else 'stay as they are, so nothing is looked at'}"
        flips = int((plain.argmax(dim=1) != other.argmax(dim=1)).sum())
        yield judged(name, counts, found, len(plain), flips, largest, least)


def companion(example: Example[Any], folder: Path | None) -> Example[Any]:
    """The example with a text as long as any, and in the folder, where there is one, a picture wider than any."""
    words = example.query.text.split() or ["word"]
    text = " ".join((words * LONG)[:LONG])
    images = example.query.images
    if folder is not None:
        path = folder / "wide.png"
        Image.new("RGB", (640, 160), (90, 120, 60)).save(path)
        images = tuple(ImageRef(path, f"wide {slot}") for slot in range(len(images)))
    return replace(example, id="companion", query=replace(example.query, images=images, text=text))
