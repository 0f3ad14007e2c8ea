"""Check that an answer depends on its example alone, not on batch size, order, padding or precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from vlbench.core.examples import Example, Examples, ImageRef
from vlbench.engine.doctor.checks import Check, compare_scores, make_check
from vlbench.engine.doctor.examined_model import ExaminedModel, with_other_images, with_other_texts

CPU, GPU = 1e-5, 1e-3
"""Largest difference of float32 scores, relative to the largest score: another order of sums; on GPUs also TF32."""
BF16 = 0.1
"""Largest difference of bfloat16 scores as a share of their range: 8 bits of mantissa, through many layers."""
DIFFERENT = 1e-5
"""Scores of other images or texts count as equal below this difference, relative to the largest score."""
LONG = 64
"""Words of the text that forces padding; models cut texts that are longer than their limit."""


def check_invariance(model: ExaminedModel, examples: Examples, folder: Path) -> Iterator[Check]:
    """Run the checks; folder: for a generated image.

    Raises:
        VlbenchError: an example that cannot be prepared.
    """
    reference = model.scores(examples)
    unit = float(reference.abs().max().clamp(min=1.0))
    tolerance = unit * (CPU if model.device.type == "cpu" else GPU)
    alone = model.scores(examples, batch=1)
    yield compare_scores("batch size", reference, alone, tolerance, f"batches of {model.batch} and of 1")
    backwards = model.scores(examples, backwards=True)
    yield compare_scores("order", reference, backwards, tolerance, "in reverse order")
    has_pixels = model.job.card.visual in ("patches", "grid")
    beside = [padding_example(examples[0], folder if has_pixels else None)]
    padded = model.scores(examples, beside=beside)
    yield compare_scores("padding", reference, padded, tolerance, "with a long text and a wide image in each batch")
    low = model.scores(examples, dtype=torch.bfloat16)
    spread = float(reference.max() - reference.min())
    yield compare_scores("bfloat16", reference, low, spread * BF16, "in bfloat16 instead of float32")
    yield from _check_sensitivity(model, examples, reference, unit * DIFFERENT)


def _check_sensitivity(model: ExaminedModel, examples: Examples, reference: Tensor, least: float) -> Iterator[Check]:
    """Check that the scores change with the images, and with the texts."""
    images, texts = with_other_images(examples), with_other_texts(examples)
    for name, noun, changed in (("pictures", "images", images), ("texts", "texts", texts)):
        if noun == "images" and model.job.card.visual == "none":
            yield Check(name=name, verdict="skipped", found="by its card the model uses no images")
            continue
        if changed == list(examples):
            found = f"all {len(examples)} examples have the same {noun}, so none can be exchanged: try more --examples"
            yield Check(name=name, verdict="skipped", found=found)
            continue
        other = model.scores(changed)
        largest = float((reference - other).abs().nan_to_num().max())
        changes = largest > least
        found = f"with other {noun}: scores {'change' if changes else f'do not change, so the {noun} are not used'}"
        flips = int((reference.argmax(dim=1) != other.argmax(dim=1)).sum())
        yield make_check(name, changes, found, len(reference), flips, largest, least)


def padding_example(example: Example[object], folder: Path | None) -> Example[object]:
    """The example with a very long text and, if there is a folder, with a very wide image."""
    words = example.query.text.split() or ["word"]
    text = " ".join((words * LONG)[:LONG])
    images = example.query.images
    if folder is not None:
        path = folder / "wide.png"
        Image.new("RGB", (640, 160), (90, 120, 60)).save(path)
        images = tuple(ImageRef(path, f"wide {slot}") for slot in range(len(images)))
    return replace(example, id="companion", query=replace(example.query, images=images, text=text))
