"""What the engine does on a GPU: pairs per second, share of the peak, training beside a bare loop, memory, host syncs.

Run as `python benchmarks/gpu.py`; it takes at most 10 minutes and needs no dataset: models have random weights, images
are noise that is decoded before anything is timed. It prints a table and writes it as JSON (`--output`). On a CPU it
only shows that it runs: `--size tiny --device cpu`.

scoring: all pairs of a gallery by the cross-encoder, as retrieval scores them, in float32 and bfloat16, eager and
compiled; peak: the share of the GPU's dense bfloat16 rate by its data sheet; COCO 5K: hours for 5,000 x 25,010 pairs at
that rate. training: the engine's optimizer step and that of a bare loop over the same rows, whose first losses must
agree. memory: the peak that torch has allocated. syncs: how often the host waits for the device, per batch or step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from engine import finetuning_seconds, gallery_of, make_learner, make_pace, make_trainings
from sides import paired_ratios
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from vlbench.core.cores import usable_cores
from vlbench.core.examples import Caption, Example
from vlbench.core.progress import Silent
from vlbench.engine.evaluators.cross_encoder import by_pairs
from vlbench.engine.evaluators.retrieval import retrieve
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.environment import make_accelerator
from vlbench.records.provenance import environment

QUICK = False
MODELS = ("vilt", "cvlp")
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "V100": 125e12}
"""Dense bfloat16 operations per second by the manufacturers' data sheets (float16 for the V100)."""
COCO_5K = 5_000 * 25_010
SYNCS = {
    "cuda": ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy"),
    "cpu": ("aten::_local_scalar_dense", "aten::nonzero"),
}
"""Calls that wait for the device; on a CPU the operations that would, to which AdamW adds one for each tensor."""

Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    images: of the gallery, with 5 texts each. batch: pairs per forward pass. train_batch: examples per optimizer step.
    """

    size: str
    images: int
    batch: int
    train_batch: int
    repeats: int


SCALES = {"tiny": Scale("tiny", 2, 8, 4, 2), "base": Scale("base", 64, 1024, 64, 10)}


@dataclass(frozen=True)
class Row:
    """One measurement; a field is None where it does not apply or the device does not tell.

    rate: pairs or examples per second. gflop: of a pair, forward. peak: share of the device's. coco_hours: for all
    pairs of COCO 5K. bare_over_engine: seconds of a bare loop over the engine's. memory_gib: the peak. syncs: per batch
    or step.
    """

    work: str
    model: str
    dtype: str
    compiled: bool
    batch: int
    rate: float
    gflop: float | None
    peak: float | None
    coco_hours: float | None
    bare_over_engine: float | None
    memory_gib: float | None
    syncs: float


def main() -> None:
    """Measure, print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SCALES, default="base")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--output", type=Path, default=Path("leaderboards/speed/gpu.json"))
    wanted = parser.parse_args()
    scale = SCALES[wanted.size]
    rows = [row for name in wanted.models.split(",") for row in measured(name, scale, wanted.device)]
    print(table(rows))
    content = {
        "environment": environment(wanted.device, 1, None).model_dump(mode="json"),
        "device": device_name(wanted.device),
        "size": wanted.size,
        "rows": [asdict(row) for row in rows],
    }
    wanted.output.parent.mkdir(parents=True, exist_ok=True)
    wanted.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf8")


def ratios(repeats: int) -> dict[str, list[float]]:
    """A bare loop's time over the engine's for training in bfloat16 on the GPU; empty where there is none."""
    if not torch.cuda.is_available():
        return {}
    accelerator, scale = make_accelerator("cuda", "bfloat16"), SCALES["base"]
    seconds = {name: finetuning_seconds(accelerator, scale.train_batch, repeats, name, clock=clock) for name in MODELS}
    return {f"training, {name}": paired_ratios(taken) for name, taken in seconds.items()}


def measured(name: str, scale: Scale, device: str) -> list[Row]:
    """The rows of one model; compiled ones on a GPU only."""
    ways: list[tuple[Dtype, bool]] = [("float32", False), ("bfloat16", False)]
    if device == "cuda":
        ways.append(("bfloat16", True))
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16")
    scored = [scoring(name, scale, make_accelerator(device, dtype), compiled) for dtype, compiled in ways]
    return scored + [training(name, scale, make_accelerator(device, dtype)) for dtype in dtypes]


def scoring(name: str, scale: Scale, accelerator: Accelerator, compiled: bool) -> Row:
    """Score all pairs of a gallery twice, and time the second time."""
    learner = make_learner(name, "coco_retrieval", scale.size).to(accelerator.device).eval()
    examples = gallery_of(scale.images, 5)
    pace, device = make_pace(scale.batch, accelerator), accelerator.device
    gflop = operations(learner, examples, device) / 1e9
    if compiled:
        learner.compile_model()

    def score() -> None:
        retrieve(learner, examples, pace, by_pairs)

    score()  # compiles, and allocates what is allocated once
    reset_memory()
    started, pairs = clock(), scale.images * len(examples)
    score()
    rate = pairs / (clock() - started)
    memory, peak = peak_memory(), peak_of(device)
    return Row(
        work="scoring",
        model=f"{name}-{scale.size}",
        dtype=dtype_of(accelerator),
        compiled=compiled,
        batch=scale.batch,
        rate=rate,
        gflop=gflop,
        peak=rate * gflop * 1e9 / peak if peak else None,
        coco_hours=COCO_5K / rate / 3600,
        bare_over_engine=None,
        memory_gib=memory,
        syncs=syncs(score, device) / -(-pairs // scale.batch),
    )


def training(name: str, scale: Scale, accelerator: Accelerator) -> Row:
    """Time the engine's optimizer steps beside those of a bare loop, then count what one of its steps waits for."""
    seconds = finetuning_seconds(accelerator, scale.train_batch, scale.repeats, name, scale.size, clock)
    steps = make_trainings(accelerator, scale.train_batch, 3, name, scale.size)[0].steps
    reset_memory()
    steps.begin(0, None, Silent())
    steps.do(Silent())  # makes the optimizer's state
    waits = syncs(lambda: steps.do(Silent()), accelerator.device)
    return Row(
        work="training",
        model=f"{name}-{scale.size}",
        dtype=dtype_of(accelerator),
        compiled=False,
        batch=scale.train_batch,
        rate=scale.train_batch / statistics.median(seconds["engine"]),
        gflop=None,
        peak=None,
        coco_hours=None,
        bare_over_engine=statistics.median(paired_ratios(seconds)),
        memory_gib=peak_memory(),
        syncs=waits,
    )


def operations(learner: Learner, examples: list[Example[Caption]], device: torch.device) -> float:
    """Floating point operations of the forward pass of one pair."""
    batch = learner.head.collate(examples[:1], [0], learner.model).to(device)
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        learner(batch)
    return float(counted.get_total_flops())


def syncs(work: Callable[[], object], device: torch.device) -> int:
    """How often the work waits for the device."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiled:
        work()
    return sum(event.count for event in profiled.key_averages() if event.key in SYNCS[device.type])


def clock() -> float:
    """Seconds of wall-clock time, once the device has done all its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def reset_memory() -> None:
    """Begin to measure the peak of the GPU's memory, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> float | None:
    """The peak of the GPU's memory in GiB; None without a GPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None


def peak_of(device: torch.device) -> float | None:
    """The dense bfloat16 rate of a GPU by its data sheet; None where it is not known."""
    name = device_name(device.type)
    return next((rate for part, rate in PEAKS.items() if part in name), None)


def device_name(device: str) -> str:
    """The name of the GPU, or the number of cores."""
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {usable_cores()} cores"


def dtype_of(accelerator: Accelerator) -> str:
    """The precision of the arithmetic."""
    return "bfloat16" if accelerator.mixed_precision == "bf16" else "float32"


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    head = (
        "work",
        "model",
        "how",
        "batch",
        "per second",
        "GFLOP",
        "peak",
        "COCO 5K, h",
        "bare / engine",
        "GiB",
        "syncs",
    )
    lines = [head, ("---",) * len(head), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(row: Row) -> tuple[str, ...]:
    """The cells of a row."""
    how = f"{row.dtype}, compiled" if row.compiled else row.dtype
    peak = "" if row.peak is None else f"{row.peak:.1%}"
    numbers = (row.coco_hours, row.bare_over_engine, row.memory_gib)
    shown = ("" if value is None else f"{value:,.2f}" for value in numbers)
    gflop = "" if row.gflop is None else f"{row.gflop:.3g}"
    return (row.work, row.model, how, f"{row.batch}", f"{row.rate:,.1f}", gflop, peak, *shown, f"{row.syncs:.2f}")


if __name__ == "__main__":
    main()
