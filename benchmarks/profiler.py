"""Accuracy and overhead of `vlbench profile`: sleeps and matrix products timed by hand, and the cost of its marks.

Run as `python benchmarks/profiler.py`. Three measurements, all in this process and on the CPU:

- The profiler's medians for three stages that sleep 5, 20 and 50 ms and one of matrix products, compared with a clock
  around the same calls. Both sides take turns, and the order alternates.
- The share of the whole that no stage accounts for: each stage and the whole have clocks of their own.
- The overhead of the marks between stages: `vilt` without decoding and preprocessing, compared with the same calls
  under a single clock, in turn, at two sizes; and the cost of a mark between empty stages.

A ratio is of one round: their median, with its 95 % interval.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from vlbench.core.profile import PIPELINE, ProfileSpec
from vlbench.profiling.build import build_model
from vlbench.profiling.inputs import make_texts, write_images
from vlbench.profiling.stages import ModelInputs
from vlbench.profiling.stopping_rule import StoppingRule, median_interval
from vlbench.profiling.timing import Durations, Stage, measure_one, run_once

CPU = torch.device("cpu")
SLEEPS = (5, 20, 50)
OVERHEAD = ("tiny", "small")
QUICK = True


class HandTimer:
    """The same stages, with a clock around each or one around all."""

    def __init__(self, stages: Sequence[Stage], each_stage: bool) -> None:
        self.stages, self.each_stage = stages, each_stage
        self.seconds: dict[str, list[float]] = {}

    def run(self) -> None:
        """Run everything once."""
        begun = time.perf_counter()
        for stage in self.stages:
            start = time.perf_counter() if self.each_stage else 0.0
            stage.run()
            if self.each_stage:
                self.seconds.setdefault(stage.name, []).append(time.perf_counter() - start)
        self.seconds.setdefault("whole", []).append(time.perf_counter() - begun)


def main() -> None:
    """Make the three measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--side", type=int, default=512, help="of the matrices")
    parser.add_argument("--threads", type=int, default=1)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    with torch.inference_mode():
        report_known(known_stages(wanted.side), wanted.rounds)
        for size in OVERHEAD:
            report_overhead(size, 5 * wanted.rounds)
        report_mark()


def ratios(repeats: int) -> dict[str, list[float]]:
    """The time by hand over that of the profiler, and without marks over with marks, in rounds of twice the repeats."""
    torch.set_num_threads(1)
    with torch.inference_mode():
        known, hand = time_both(known_stages(512), 2 * repeats, each_stage=True)
        marked, unmarked = time_marks("tiny", 40 * repeats)
    pairs = {"all stages": (hand["whole"], known.whole), "vilt-tiny, marks": (unmarked["whole"], marked.whole)}
    return {name: [one / other for one, other in zip(*both, strict=True)] for name, both in pairs.items()}


def known_stages(side: int) -> list[Stage]:
    """Stages that sleep, and one of ten matrix products."""
    left, right = torch.randn(side, side), torch.randn(side, side)

    def products() -> None:
        for _ in range(10):
            torch.mm(left, right)

    sleeps = [Stage(f"sleep {ms} ms", lambda ms=ms: time.sleep(ms / 1000)) for ms in SLEEPS]  # type: ignore[misc]
    return [*sleeps, Stage("products", products)]


def time_both(stages: Sequence[Stage], rounds: int, each_stage: bool) -> tuple[Durations, Mapping[str, list[float]]]:
    """Rounds of the profiler and by hand, in turn, after three that do not count."""
    hand, durations, rule = HandTimer(stages, each_stage), Durations(), StoppingRule(1, 0.0, float("inf"))

    def profiler() -> None:
        measured = measure_one(stages, rule, 0.0, CPU, warmup=0)
        durations.whole += measured.whole
        for name, seconds in measured.stages.items():
            durations.stages.setdefault(name, []).extend(seconds)

    for number in range(rounds + 3):
        for run in (profiler, hand.run)[:: -1 if number % 2 else 1]:
            run()
    later = {name: seconds[3:] for name, seconds in durations.stages.items()}
    return Durations(later, durations.whole[3:]), {name: seconds[3:] for name, seconds in hand.seconds.items()}


def report_known(stages: Sequence[Stage], rounds: int) -> None:
    """Print the profiler's values next to those by hand, and the share that no stage accounts for."""
    durations, hand = time_both(stages, rounds, each_stage=True)
    for name, seconds in durations.stages.items():
        ms = 1000 * statistics.median(seconds)
        print(f"{name}: {ms:.3f} ms; profiler / by hand {ratio(seconds, hand[name])}", end="")
        expected = name.split()[1] if name.startswith("sleep") else ""
        print(f"; / expected {ms / float(expected):.4f}" if expected else "")
    rest = 1 - sum(map(sum, durations.stages.values())) / sum(durations.whole)
    print(
        f"whole: profiler / by hand {ratio(durations.whole, hand['whole'])}; no stage accounts for {100 * rest:.4f} %"
    )


def time_marks(size: str, rounds: int) -> tuple[Durations, Mapping[str, list[float]]]:
    """Rounds of a model of that size with marks between its stages, and without."""
    spec = ProfileSpec(models=("vilt",), size=size)
    with TemporaryDirectory() as folder:
        refs = write_images(Path(folder) / "images", spec.picture, 1, spec.seed)
        inputs = ModelInputs(refs, make_texts(1, spec.words, spec.seed))
        stages = build_model("vilt", spec, Path(folder), CPU).with_inputs(inputs, CPU).stages()
        run_once(stages, CPU)
        return time_both([stage for stage in stages if stage.name not in PIPELINE], rounds, each_stage=False)


def report_overhead(size: str, rounds: int) -> None:
    """Print the overhead of the marks for a model of that size."""
    durations, hand = time_marks(size, rounds)
    ms = 1000 * statistics.median(durations.whole)
    marks = len(durations.stages)
    print(f"vilt-{size}, {marks} marks: {ms:.3f} ms; with marks / without {ratio(durations.whole, hand['whole'])}")


def report_mark(stages: int = 1000, rounds: int = 50) -> None:
    """Print the cost of a mark between empty stages."""
    empty = [Stage(str(number), lambda: None) for number in range(stages)]
    seconds = [run_once(empty, CPU)[1] / stages for _ in range(rounds)]
    print(f"a mark: {1e6 * statistics.median(seconds):.3f} microseconds")


def ratio(first: Sequence[float], second: Sequence[float]) -> str:
    """The median ratio of one round, with its interval, as text."""
    values = [one / other for one, other in zip(first, second, strict=True)]
    low, high = median_interval(values)
    return f"{statistics.median(values):.4f} [{low:.4f}, {high:.4f}]"


if __name__ == "__main__":
    main()
