"""CPU time to start: the libraries alone, compared with importing the engine and with `run` up to a first step.

Run as `python benchmarks/startup.py`. Every call is a fresh interpreter; its CPU seconds are those of the process, all
threads together. The other side is `import torch, accelerate, pyarrow`. `run` fine-tunes CVLP for one step on eight
examples of a small synthetic world, which is generated before; it also evaluates eight examples and writes a record.
`--help` and `list` import none of the libraries.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from sides import Side, format_spread, measure, paired_ratios

from vlbench.world.generate import TINY, ensure_world

QUICK = True
LIBRARIES = "import torch, accelerate, pyarrow"
ENGINE = "import vlbench.engine.execute"
RUN = (
    "run", "--task", "nlvr2", "--model", "cvlp", "--checkpoint", "none", "--steps", "1", "--batch-size", "8",
    "--limit", "8", "--select-on", "none", "--controls", "none", "--device", "cpu", "--threads", "1", "--quiet",
)  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    seconds = time_sides(parser.parse_args().repeats)
    for name, taken in seconds.items():
        print(f"{name}: {format_spread(taken)} CPU-s")
    for name, values in compared(seconds).items():
        print(f"libraries / {name}: {format_spread(values)}")


def ratios(repeats: int) -> dict[str, list[float]]:
    """The time of importing the libraries over that of each start."""
    return compared(time_sides(repeats))


def compared(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    """The first side's time over that of each other side."""
    base, *others = seconds.items()
    return {name: paired_ratios(dict((base, (name, taken)))) for name, taken in others}


def time_sides(repeats: int) -> dict[str, list[float]]:
    """CPU seconds of the libraries and of every start, each repeat with an output folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = ensure_world(folder / "cache", size=TINY, tasks=["nlvr2"])

        def run_once() -> None:
            output = tempfile.mkdtemp(dir=folder)
            start("-m", "vlbench", *RUN, "--data-root", str(world), "--output-path", output)

        sides: dict[str, Side] = {
            "libraries": lambda: start("-c", LIBRARIES),
            "import of the engine": lambda: start("-c", ENGINE),
            "run to the first step": run_once,
            "--help": lambda: start("-m", "vlbench", "--help"),
            "list": lambda: start("-m", "vlbench", "list", "models"),
        }
        for side in sides.values():
            side()  # reads every file once, and compiles what is not compiled yet
        return measure(sides, repeats, children)


def start(*arguments: str) -> None:
    """Run Python with the arguments. Raises RuntimeError if it fails."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=os.environ, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}")


def children() -> float:
    """CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
