"""Time of our ViLT-B/32, compared with transformers' ViltModel with the same weights, images and texts.

Run as `python benchmarks/vilt.py`. Both sides compute pooled and text states from prepared tensors (ours from patches,
theirs from padded pixels with a mask), in evaluation mode, in one process and in turn; the order alternates. They must
agree in float32 before they are timed. A ratio is of one repeat. By default on the CPU, in float32 and
eager; see `--device cuda`, `--dtype bfloat16` and `--compile`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
import yaml
from sides import NoiseImages, Side, format_spread, make_refs, measure, paired_ratios
from torch import Tensor, nn

import vlbench.models.vilt
from vlbench.core.backbone import Tensors
from vlbench.models.vilt.backbone import ViLT
from vlbench.models.vilt.checkpoint import convert
from vlbench.models.vilt.modeling import EPSILON, ViLTConfig

WORDS, LONGEST, BATCH = 30_522, 40, 4
States = Callable[[], tuple[Tensor, Tensor]]
"""Pooled and text states of one side."""


def main() -> None:
    """Check that both sides agree, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true")
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    torch.manual_seed(0)
    theirs = make_theirs().to(wanted.device)
    ours = make_ours(theirs).to(wanted.device)
    images = on_device(ours.prepare_images(make_refs(wanted.batch)), wanted.device)
    texts = on_device(make_texts(wanted.batch), wanted.device)
    sides: dict[str, States] = {
        "transformers": their_side(theirs, images, texts, ours.config.patch),
        "this": our_side(ours, images, texts),
    }
    with torch.inference_mode():
        compare(sides, texts["mask"])
        if wanted.compile:
            theirs.compile(dynamic=True)
            ours.network.compile(dynamic=True)
        ready = {name: synchronized(side, wanted.device, wanted.dtype) for name, side in sides.items()}
        for side in ready.values():
            side()
        clock = time.process_time if wanted.device == "cpu" else time.perf_counter
        report(measure(ready, wanted.repeats, clock), images["mask"])


def ratios(repeats: int) -> dict[str, list[float]]:
    """The other side's time over ours, on the CPU in float32; greater is better."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    theirs = make_theirs()
    ours = make_ours(theirs)
    images, texts = ours.prepare_images(make_refs(BATCH)), make_texts(BATCH)
    sides: dict[str, States] = {
        "transformers": their_side(theirs, images, texts, ours.config.patch),
        "this": our_side(ours, images, texts),
    }
    with torch.inference_mode():
        compare(sides, texts["mask"])
        return {"vilt: transformers / this": paired_ratios(measure(sides, repeats))}


def synchronized(side: States, device: str, dtype: str) -> Side:
    """A side in that precision, which waits for the device."""

    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            side()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def on_device(tensors: Tensors, device: str) -> Tensors:
    """The tensors on that device."""
    return {name: value.to(device) for name, value in tensors.items()}


def make_theirs() -> nn.Module:
    """ViLT-B/32 with random weights, and layer norms with the epsilon of the official code."""
    config = transformers.ViltConfig(max_image_length=-1)
    model: nn.Module = transformers.ViltModel(config)
    model.eval()
    for name, layer in model.named_modules():
        if isinstance(layer, nn.LayerNorm) and "text_embeddings" not in name:
            layer.eps = EPSILON
    return model


def make_ours(theirs: nn.Module) -> ViLT:
    """The card's base size with the other side's weights."""
    card = yaml.safe_load((Path(vlbench.models.vilt.__file__).parent / "model.yaml").read_text(encoding="utf8"))
    config = ViLTConfig.model_validate({**card["sizes"]["base"]["config"], "vocab_size": WORDS})
    text: Any = SimpleNamespace(vocab_size=WORDS, max_length=LONGEST)
    resources: Any = SimpleNamespace(text=text, images=NoiseImages(), regions=None)
    model = ViLT(config, resources).eval()
    weights = convert(theirs.state_dict()).weights
    model.load_state_dict({name.removeprefix("backbone."): value for name, value in weights.items()})
    return model


def make_texts(batch: int) -> Tensors:
    """Random texts of 10, 15, 20 ... 40 tokens, padded to the longest."""
    lengths = torch.tensor([10 + 5 * (row % 7) for row in range(batch)])
    longest = int(lengths.max())
    mask = torch.arange(longest) < lengths[:, None]
    return {"ids": torch.randint(1, WORDS, (batch, longest)) * mask, "mask": mask}


def our_side(model: ViLT, images: Tensors, texts: Tensors) -> States:
    """Run see, read and fuse on prepared tensors."""
    slot = torch.zeros(len(texts["ids"]), dtype=torch.int64, device=texts["ids"].device)

    def run() -> tuple[Tensor, Tensor]:
        features = model.fuse(model.see(images, slot), model.read(texts))
        return features.pooled, features.text

    return run


def their_side(model: nn.Module, images: Tensors, texts: Tensors, patch: int) -> States:
    """Run on the same patches, joined into padded images with a mask."""
    count, device = len(texts["ids"]), texts["ids"].device
    rows, columns = (int(side) * patch for side in images["grids"].amax(dim=0))
    pixels = torch.zeros(count, 3, rows, columns, device=device)
    mask = torch.zeros(count, rows, columns, dtype=torch.int64, device=device)
    for row, (high, wide) in enumerate(images["grids"].tolist()):
        cut = images["patches"][row, : high * wide].float().view(high, wide, 3, patch, patch)
        pixels[row, :, : high * patch, : wide * patch] = cut.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2) / 127.5 - 1
        mask[row, : high * patch, : wide * patch] = 1

    def run() -> tuple[Tensor, Tensor]:
        given = {"input_ids": texts["ids"], "attention_mask": texts["mask"].long(), "pixel_values": pixels}
        result = model(**given, pixel_mask=mask)
        return result.pooler_output, result.last_hidden_state[:, : texts["ids"].shape[1]]

    return run


def compare(sides: dict[str, States], mask: Tensor) -> None:
    """Stop if the sides differ; visual states are not compared, since the other side shuffles its patches."""
    (pooled, text), (other_pooled, other_text) = (side() for side in sides.values())
    difference = max(float((pooled - other_pooled).abs().max()), float((text - other_text)[mask].abs().max()))
    if difference > 1e-4:
        raise SystemExit(f"the sides differ by {difference:.2g}")
    print(f"the sides agree: pooled and text states differ by at most {difference:.1g}")


def report(seconds: dict[str, list[float]], mask: Tensor) -> None:
    """Print median and range of each side, of their ratio, and of the ratio by the side that ran first."""
    for name, taken in seconds.items():
        print(f"{name}: {format_spread(taken)} s for {len(mask)} pairs of {mask.sum(dim=1).tolist()} patches")
    every = paired_ratios(seconds)
    for label, part in (("", every), (", transformers first", every[::2]), (", this first", every[1::2])):
        if part:
            print(f"transformers / this{label}: {format_spread(part)}")


if __name__ == "__main__":
    main()
