"""Time of ViLT-B/32 here, beside transformers' ViltModel with the same weights over the same pictures and texts.

Run as `python benchmarks/vilt.py`. Both sides take tensors that are ready (ours patches, theirs a canvas with a mask)
to pooled and text states, in evaluation mode, in float32 and eagerly on the CPU, in one process and in turn; which of
them goes first alternates. They must agree before anything is measured. Ratios are of neighbours in time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
import yaml
from PIL import Image
from torch import Tensor, nn

import vlbench.models.vilt
from vlbench.core.backbone import Tensors
from vlbench.core.examples import ImageRef
from vlbench.models.vilt.backbone import ViLT
from vlbench.models.vilt.checkpoint import convert
from vlbench.models.vilt.modeling import EPSILON, ViLTConfig

WORDS, LONGEST = 30_522, 40
PICTURES = ((640, 480), (480, 640), (640, 427), (500, 375))
"""Widths and heights, COCO's usual ones."""

Side = Callable[[], tuple[Tensor, Tensor]]


class Drawn:
    """Noise of the size that the picture's key names."""

    def open(self, ref: ImageRef) -> Image.Image:
        width, height = map(int, ref.key.split("x"))
        return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8))


def main() -> None:
    """Check that both sides agree, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    torch.manual_seed(0)
    theirs = make_theirs()
    ours = make_ours(theirs)
    sizes = [PICTURES[row % len(PICTURES)] for row in range(wanted.batch)]
    images = ours.prepare_images([ImageRef(Path(), f"{width}x{height}") for width, height in sizes])
    words = make_words(wanted.batch)
    sides: dict[str, Side] = {
        "transformers": their_side(theirs, images, words, ours.config.patch),
        "this": our_side(ours, images, words),
    }
    with torch.inference_mode():
        compare(sides, words["mask"])
        report(measure(sides, wanted.repeats), images["mask"])


def make_theirs() -> nn.Module:
    """ViLT-B/32 with random weights, its norms as sharp as in the official code."""
    config = transformers.ViltConfig(max_image_length=-1)
    model: nn.Module = transformers.ViltModel(config).eval()
    for name, layer in model.named_modules():
        if isinstance(layer, nn.LayerNorm) and "text_embeddings" not in name:
            layer.eps = EPSILON
    return model


def make_ours(theirs: nn.Module) -> ViLT:
    """The card's base with the other side's weights."""
    card = yaml.safe_load((Path(vlbench.models.vilt.__file__).parent / "model.yaml").read_text(encoding="utf8"))
    config = ViLTConfig.model_validate({**card["sizes"]["base"]["config"], "vocab_size": WORDS})
    text: Any = SimpleNamespace(vocab_size=WORDS, max_length=LONGEST)
    resources: Any = SimpleNamespace(text=text, pictures=Drawn(), regions=None)
    model = ViLT(config, resources).eval()
    weights = convert(theirs.state_dict()).weights
    model.load_state_dict({name.removeprefix("backbone."): value for name, value in weights.items()})
    return model


def make_words(batch: int) -> Tensors:
    """Texts of 10, 15, 20 ... tokens, none longer than the model's longest, padded to the longest of them."""
    lengths = torch.tensor([10 + 5 * (row % 7) for row in range(batch)])
    longest = int(lengths.max())
    mask = torch.arange(longest) < lengths[:, None]
    return {"ids": torch.randint(1, WORDS, (batch, longest)) * mask, "mask": mask}


def our_side(model: ViLT, images: Tensors, words: Tensors) -> Side:
    """Tensors that `prepare_*` made, through see, read and fuse."""
    slot = torch.zeros(len(words["ids"]), dtype=torch.int64)

    def run() -> tuple[Tensor, Tensor]:
        features = model.fuse(model.see(images, slot), model.read(words))
        return features.pooled, features.text

    return run


def their_side(model: nn.Module, images: Tensors, words: Tensors, patch: int) -> Side:
    """The same patches put together again on one canvas, scaled, with the mask of its pixels."""
    count = len(words["ids"])
    rows, columns = (int(side) * patch for side in images["grids"].amax(dim=0))
    pixels, mask = torch.zeros(count, 3, rows, columns), torch.zeros(count, rows, columns, dtype=torch.int64)
    for row, (high, wide) in enumerate(images["grids"].tolist()):
        cut = images["patches"][row, : high * wide].float().view(high, wide, 3, patch, patch)
        pixels[row, :, : high * patch, : wide * patch] = cut.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2) / 127.5 - 1
        mask[row, : high * patch, : wide * patch] = 1

    def run() -> tuple[Tensor, Tensor]:
        given = {"input_ids": words["ids"], "attention_mask": words["mask"].long(), "pixel_values": pixels}
        result = model(**given, pixel_mask=mask)
        return result.pooler_output, result.last_hidden_state[:, : words["ids"].shape[1]]

    return run


def compare(sides: dict[str, Side], mask: Tensor) -> None:
    """Stop where the two sides differ; visual states are left out, since the other side shuffles its patches."""
    (pooled, text), (other_pooled, other_text) = (side() for side in sides.values())
    apart = max(float((pooled - other_pooled).abs().max()), float((text - other_text)[mask].abs().max()))
    if apart > 1e-4:
        raise SystemExit(f"the two sides differ by {apart:.2g}")
    print(f"both agree: pooled and text states differ by at most {apart:.1g}")


def measure(sides: dict[str, Side], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of every call, in turn; which side goes first alternates."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name in list(sides)[:: -1 if repeat % 2 else 1]:
            start = time.process_time()
            sides[name]()
            seconds[name].append(time.process_time() - start)
    return seconds


def report(seconds: dict[str, list[float]], mask: Tensor) -> None:
    """Median and range of each side, of their ratio, and of the ratio by which side went first."""
    for name, taken in seconds.items():
        print(f"{name}: {spread(taken)} CPU-s for {len(mask)} pairs of {mask.sum(dim=1).tolist()} patches")
    ratios = [slow / own for slow, own in zip(*seconds.values(), strict=True)]
    for label, part in (("", ratios), (", transformers first", ratios[::2]), (", this first", ratios[1::2])):
        print(f"transformers / this{label}: {spread(part)}")


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
