"""CPU time of turning logits over VQA's 3,129 answers into predictions, compared with sorting all of them.

Run as `python benchmarks/heads.py`. Both sides make the same predictions, the ten best answers with ties in the order
of the list, of the same 256 random logits in one process, in turn: in float32, and in bfloat16, where ties are common.
"""

from __future__ import annotations

import argparse

import torch
from sides import Side, format_spread, measure, paired_ratios
from torch import Tensor

from vlbench.core.cards import HeadLayout
from vlbench.core.results import Prediction
from vlbench.heads.classify import TOP, SoftHead

QUICK = True
EXAMPLES, WIDTH = 256, 8
ANSWERS = tuple(f"answer {number}" for number in range(3_129))
IDS = tuple(f"question {number}" for number in range(EXAMPLES))
TYPES = (torch.float32, torch.bfloat16)


def main() -> None:
    """Check that both sides agree, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    for dtype in TYPES:
        seconds = timings(dtype, repeats)
        for name, taken in seconds.items():
            print(f"{dtype}, {name}: {format_spread([1e3 * value for value in taken])} CPU-ms")
        print(f"{dtype}, sorting / SoftHead.finish: {format_spread(paired_ratios(seconds))}")


def ratios(repeats: int) -> dict[str, list[float]]:
    """The time of sorting over that of `SoftHead.finish`, for each type of logits and each repeat."""
    return {f"SoftHead.finish, {dtype}, sorting / this": paired_ratios(timings(dtype, repeats)) for dtype in TYPES}


def timings(dtype: torch.dtype, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of both sides. Stops if their predictions differ."""
    torch.set_num_threads(1)
    logits = torch.randn(EXAMPLES, len(ANSWERS), generator=torch.Generator().manual_seed(0)).to(dtype)
    head = SoftHead(WIDTH, ANSWERS, HeadLayout())
    if by_sorting(logits) != head.finish(logits, IDS):
        raise SystemExit("the sides make different predictions")
    sides: dict[str, Side] = {"sorting": lambda: by_sorting(logits), "this": lambda: head.finish(logits, IDS)}
    return measure(sides, repeats)


def by_sorting(logits: Tensor) -> list[Prediction]:
    """The predictions of a stable sort of all logits."""
    columns = logits.double().argsort(dim=-1, descending=True, stable=True)
    probabilities = logits.double().sigmoid().gather(-1, columns[:, :TOP])
    return [
        Prediction(id_, ANSWERS[best[0]], {ANSWERS[column]: value for column, value in zip(best, values, strict=True)})
        for id_, best, values in zip(IDS, columns[:, :TOP].tolist(), probabilities.tolist(), strict=True)
    ]


if __name__ == "__main__":
    main()
