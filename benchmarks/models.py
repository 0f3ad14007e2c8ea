"""Time of the in-repo models of base size, compared with what their options leave out.

Run as `python benchmarks/models.py`. Two comparisons per model, with random weights, 36 regions or images of COCO's
sizes, and short texts; each side runs in evaluation mode, in one process and in turn, and the order alternates. A ratio
is of one repeat.
- `fuse`: all features of pairs over `pooled` alone, which heads read. Both must agree to 1e-5 before they are timed.
- `bfloat16`: see, read and fuse under autocast with float32 weights over the same with bfloat16 weights, as `--dtype
  bfloat16` holds them where they are not trained. Both must be closer to float32 than a tenth of what sets pairs apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from sides import NoiseImages, RandomRegions, format_spread, make_refs, measure, paired_ratios
from torch import Tensor

import vlbench.models
from vlbench.core.backbone import Tensors
from vlbench.models.cvlp.backbone import CVLP
from vlbench.models.lxmert.backbone import LXMERT
from vlbench.models.vilt.backbone import ViLT

Model = CVLP | LXMERT | ViLT
MODELS: Mapping[str, type[Model]] = {"cvlp": CVLP, "lxmert": LXMERT, "vilt": ViLT}
WORDS, LONGEST, BATCH = 30_522, 16, 4


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=8)
    for name, values in ratios(parser.parse_args().repeats).items():
        print(f"{name}: {format_spread(values)}")


def ratios(repeats: int) -> dict[str, list[float]]:
    """The comparisons by name; greater is better."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    measured: dict[str, list[float]] = {}
    with torch.inference_mode():
        for name, kind in MODELS.items():
            model = make_model(name, kind)
            images, texts = model.prepare_images(make_refs(BATCH)), make_texts()
            measured[f"{name}: fuse, all features / pooled"] = compare_fuse(model, images, texts, repeats)
            measured[f"{name}: autocast / bfloat16 weights"] = compare_weights(model, images, texts, repeats)
    return measured


def make_model(name: str, kind: type[Model]) -> Model:
    """The card's base size with random weights."""
    card = yaml.safe_load((Path(vlbench.models.__file__).parent / name / "model.yaml").read_text(encoding="utf8"))
    data: Any = SimpleNamespace(
        text=SimpleNamespace(vocab_size=WORDS, max_length=LONGEST), images=NoiseImages(), regions=RandomRegions()
    )
    values = {**card["sizes"]["base"]["config"], **kind.sizes_of_data(data)}
    config: Any = kind.config_type.model_validate(values)
    return kind(config, data).eval()


def make_texts() -> Tensors:
    """Random texts of 9 to 16 tokens, padded to the longest."""
    mask = torch.arange(LONGEST) < torch.tensor([9 + row % 8 for row in range(BATCH)])[:, None]
    return {"ids": torch.randint(1, WORDS, (BATCH, LONGEST)) * mask, "mask": mask}


def compare_fuse(model: Model, images: Tensors, texts: Tensors, repeats: int) -> list[float]:
    """Ratios of `fuse` for all features over `fuse` for pooled alone."""
    seen, read = model.see(images, torch.zeros(BATCH, dtype=torch.int64)), model.read(texts)
    sides: dict[str, Callable[[], Tensor]] = {
        "all": lambda: model.fuse(seen, read).pooled,
        "pooled": lambda: model.fuse(seen, read, pooled_only=True).pooled,
    }
    whole, alone = (run() for run in sides.values())
    if (difference := float((whole - alone).abs().max())) > 1e-5:
        raise SystemExit(f"the sides differ by {difference:.2g}")
    return paired_ratios(measure(sides, repeats))


def compare_weights(model: Model, images: Tensors, texts: Tensors, repeats: int) -> list[float]:
    """Ratios of autocast over float32 weights over autocast over bfloat16 weights."""
    low = deepcopy(model)
    low.lower(torch.bfloat16)
    exact = side(model, images, texts)()
    sides = {"autocast": side(model, images, texts), "bfloat16": side(low, images, texts)}
    apart = (exact - exact.mean(dim=0)).norm(dim=1).median()
    with torch.autocast("cpu", torch.bfloat16):  # around all repeats, as a run does, so that weights are cast once
        for name, run in sides.items():
            if (run().float() - exact).norm(dim=1).median() > apart / 10:
                raise SystemExit(f"{name} differs from float32 by more than a tenth of what sets pairs apart")
        return paired_ratios(measure(sides, repeats))


def side(model: Model, images: Tensors, texts: Tensors) -> Callable[[], Tensor]:
    """See, read and fuse on prepared tensors: pooled [B, D]."""
    slot = torch.zeros(BATCH, dtype=torch.int64)
    return lambda: model.fuse(model.see(images, slot), model.read(texts), pooled_only=True).pooled


if __name__ == "__main__":
    main()
