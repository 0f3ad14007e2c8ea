"""What `vlbench profile` measures, beside what is known: sleeps, matrix products timed by hand, and its own cost.

Run as `python benchmarks/profiler.py`. Three questions, all in this process and on the CPU:

- A model of three stages that sleep 5, 20 and 50 ms and one of matrix products: the profiler's medians beside those of
  a clock around the same calls. Both sides take turns, and which goes first alternates.
- How much of the whole no stage accounts for: each stage has a start and an end of its own, the whole a third clock.
- Overhead of the marks between stages: `vilt` without decoding and preprocessing, with them beside the same calls one
  after the other with one clock around all, in turn, at two sizes; and what a mark between empty stages costs.

Ratios are of neighbours in time: their median, and an interval that holds it with 95 %.
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


class ByHand:
    """The same stages with a clock around each, or one around all."""

    def __init__(self, stages: Sequence[Stage], apart: bool) -> None:
        self.stages, self.apart = stages, apart
        self.seconds: dict[str, list[float]] = {}

    def run(self) -> None:
        """Run everything once."""
        begun = time.perf_counter()
        for stage in self.stages:
            start = time.perf_counter() if self.apart else 0.0
            stage.run()
            if self.apart:
                self.seconds.setdefault(stage.name, []).append(time.perf_counter() - start)
        self.seconds.setdefault("whole", []).append(time.perf_counter() - begun)


def main() -> None:
    """Answer the three questions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--side", type=int, default=512, help="of the matrices")
    parser.add_argument("--threads", type=int, default=1)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    with torch.inference_mode():
        report_known(known(wanted.side), wanted.rounds)
        for size in OVERHEAD:
            report_overhead(size, 5 * wanted.rounds)
        report_mark()


def known(side: int) -> list[Stage]:
    """Stages that sleep, and one of ten products of matrices."""
    one, other = torch.randn(side, side), torch.randn(side, side)

    def products() -> None:
        for _ in range(10):
            torch.mm(one, other)

    sleeps = [Stage(f"sleep {ms} ms", lambda ms=ms: time.sleep(ms / 1000)) for ms in SLEEPS]  # type: ignore[misc]
    return [*sleeps, Stage("products", products)]


def both(stages: Sequence[Stage], rounds: int, apart: bool) -> tuple[Durations, Mapping[str, list[float]]]:
    """So many rounds of the profiler and by hand, in turn, after three that do not count."""
    hand, found, exactly = ByHand(stages, apart), Durations(), StoppingRule(1, 0.0, float("inf"))

    def profiler() -> None:
        one = measure_one(stages, exactly, 0.0, CPU, warmup=0)
        found.whole += one.whole
        for name, seconds in one.stages.items():
            found.stages.setdefault(name, []).extend(seconds)

    for number in range(rounds + 3):
        for run in (profiler, hand.run)[:: -1 if number % 2 else 1]:
            run()
    later = {name: seconds[3:] for name, seconds in found.stages.items()}
    return Durations(later, found.whole[3:]), {name: seconds[3:] for name, seconds in hand.seconds.items()}


def report_known(stages: Sequence[Stage], rounds: int) -> None:
    """Print the profiler's figures beside those by hand, and the share that no stage accounts for."""
    found, hand = both(stages, rounds, apart=True)
    for name, seconds in found.stages.items():
        ms = 1000 * statistics.median(seconds)
        print(f"{name}: {ms:.3f} ms; profiler / by hand {ratio(seconds, hand[name])}", end="")
        asked = name.split()[1] if name.startswith("sleep") else ""
        print(f"; / asked {ms / float(asked):.4f}" if asked else "")
    rest = 1 - sum(map(sum, found.stages.values())) / sum(found.whole)
    print(f"whole: profiler / by hand {ratio(found.whole, hand['whole'])}; no stage accounts for {100 * rest:.4f} %")


def report_overhead(size: str, rounds: int) -> None:
    """Print what the marks cost a model of that size."""
    spec = ProfileSpec(models=("vilt",), size=size)
    with TemporaryDirectory() as folder:
        refs = write_images(Path(folder) / "pictures", spec.picture, 1, spec.seed)
        batch = ModelInputs(refs, make_texts(1, spec.words, spec.seed))
        stages = build_model("vilt", spec, Path(folder), CPU).with_inputs(batch, CPU).stages()
        run_once(stages, CPU)
        found, hand = both([stage for stage in stages if stage.name not in PIPELINE], rounds, apart=False)
    ms = 1000 * statistics.median(found.whole)
    marks = len(found.stages)
    print(f"vilt-{size}, {marks} marks: {ms:.3f} ms; with marks / without {ratio(found.whole, hand['whole'])}")


def report_mark(stages: int = 1000, rounds: int = 50) -> None:
    """Print what a mark costs beside nothing."""
    empty = [Stage(str(number), lambda: None) for number in range(stages)]
    seconds = [run_once(empty, CPU)[1] / stages for _ in range(rounds)]
    print(f"a mark: {1e6 * statistics.median(seconds):.3f} microseconds")


def ratio(one: Sequence[float], other: Sequence[float]) -> str:
    """The median of ratios of neighbours in time, with its interval."""
    values = [first / second for first, second in zip(one, other, strict=True)]
    low, high = median_interval(values)
    return f"{statistics.median(values):.4f} [{low:.4f}, {high:.4f}]"


if __name__ == "__main__":
    main()
