"""Wall-clock time of two trials one after the other and side by side (`--jobs 2`), on an otherwise idle machine.

    python benchmarks/jobs.py [--repeats N] [--steps N]

Timed are whole commands, each in a new process, imports included: a run with its image-blind control, and two seeds
without controls. The models train on a small synthetic world, which is generated first. Both sides must leave the same
answers, to the last bit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import sides

from vlbench.world.generate import TINY, ensure_world

TRIALS = {
    "a run and its control": ("--controls", "blind"),
    "two seeds": ("--controls", "none", "--seeds", "0,1"),
}
STEPS = 300


def main() -> None:
    """Print a row for each pair of trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    print("| two trials | one after the other, s | side by side, s | ratio |\n|---|---|---|---|")
    for name, seconds in measure(arguments.repeats, arguments.steps).items():
        cells = [sides.format_spread(values) for values in (*seconds.values(), sides.paired_ratios(seconds))]
        print(f"| {name} | {' | '.join(cells)} |")


def ratios(repeats: int) -> dict[str, list[float]]:
    """The time of one after the other over that of side by side, for each repeat."""
    return {name: sides.paired_ratios(seconds) for name, seconds in measure(repeats, STEPS).items()}


def measure(repeats: int, steps: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of both sides of every pair of trials."""
    with tempfile.TemporaryDirectory() as folder:
        world = ensure_world(Path(folder) / "cache", size=TINY)
        return {name: _measure_pair(flags, world, repeats, steps) for name, flags in TRIALS.items()}


def _measure_pair(flags: tuple[str, ...], world: Path, repeats: int, steps: int) -> dict[str, list[float]]:
    def side(jobs: int) -> sides.Side:
        return lambda: answers.__setitem__(jobs, _run(flags, world, jobs, steps))

    answers: dict[int, list[pd.DataFrame]] = {}
    seconds = sides.measure({"1": side(1), "2": side(2)}, repeats, time.perf_counter)
    for in_turn, beside in zip(answers[1], answers[2], strict=True):
        pd.testing.assert_frame_equal(in_turn, beside, check_exact=True)
    return seconds


def _run(flags: tuple[str, ...], world: Path, jobs: int, steps: int) -> list[pd.DataFrame]:
    """Run the command in an empty folder; returns the samples of its runs."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "vlbench", "run", "--task", "nlvr2", "--model", "cvlp", *flags, "--quiet"]
        command += ["--data-root", str(world), "--output-path", runs, "--jobs", str(jobs), "--steps", str(steps)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return [pd.read_parquet(path) for path in sorted(Path(runs).rglob("samples.parquet"))]


if __name__ == "__main__":
    main()
