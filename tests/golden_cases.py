"""Golden numbers of the official code (tests/golden/README.md): inputs, outputs and weights of one case.

Every `in/*` and `out/*` tensor has the shape that its case's JSON file states.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class GoldenCase:
    """One case. config: every size of the official network. weights: its state dict, empty where the case has none."""

    config: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    weights: dict[str, Tensor]
    absolute: float
    relative: float

    def assert_close(self, name: str, actual: Tensor, mask: Tensor | None = None) -> None:
        """Compare `actual` with output `name` within the tolerance; only where `mask` (leading axes) is true."""
        expected = self.outputs[name]
        assert actual.shape == expected.shape, f"{name}: shape {tuple(actual.shape)} instead of {tuple(expected.shape)}"
        if mask is not None:
            actual, expected = actual[mask.bool()], expected[mask.bool()]
        torch.testing.assert_close(
            actual.detach().to(expected.dtype),
            expected,
            atol=self.absolute,
            rtol=self.relative,
            msg=lambda m: f"{name}: {m}",
        )


def load_case(model: str, case: str) -> GoldenCase:
    """Read the case `case` of the folder `model`."""
    about = json.loads((GOLDEN / model / f"{case}.json").read_text(encoding="utf8"))
    tensors = load_file(GOLDEN / model / f"{case}.safetensors")
    weights: dict[str, Tensor] = {}
    for file in about["weights"]:
        weights |= load_file(GOLDEN / model / file)
    tolerance = about["tolerance"]
    return GoldenCase(
        config=about["config"],
        inputs={name.removeprefix("in/"): value for name, value in tensors.items() if name.startswith("in/")},
        outputs={name.removeprefix("out/"): value for name, value in tensors.items() if name.startswith("out/")},
        weights=weights,
        absolute=tolerance["absolute"],
        relative=tolerance["relative"],
    )
