"""Time the start of a run: importing the engine, and `vlbench run --model cvlp` up to the end of its only step.

The other side imports the libraries that the engine is made of: torch, Accelerate and pyarrow. Every call is a new
process, whose CPU seconds are counted. The run reads a world of 480 examples, which is generated before.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sides import format_spread, measure

from vlbench.world.generate import TINY, ensure_world

LIBRARIES = ("-c", "import torch, accelerate, pyarrow")
ENGINE = ("-c", "import vlbench.engine.execute")
RUN = ("-m", "vlbench", "run", "--task", "nlvr2", "--model", "cvlp", "--steps", "1", "--limit", "1", "--quiet",
       "--controls", "none", "--select-on", "none", "--no-resume")  # fmt: skip


def main(repeats: int) -> None:
    """Print the ratios."""
    for name, values in ratios(repeats).items():
        print(f"{name}: {format_spread(values)}")


def ratios(repeats: int) -> dict[str, list[float]]:
    """CPU seconds of importing the libraries over those of the engine and of a run, for each repeat."""
    with tempfile.TemporaryDirectory() as folder:
        world = ensure_world(Path(folder), size=TINY)
        run = (*RUN, "--data-root", str(world), "--output-path", str(Path(folder) / "runs"))
        sides = {"libraries": LIBRARIES, "engine": ENGINE, "run of one step": run}
        calls = {name: partial(_start, arguments) for name, arguments in sides.items()}
        seconds = measure(calls, repeats, _children_seconds)
    libraries = seconds.pop("libraries")
    return {
        f"libraries / {name}": [first / second for first, second in zip(libraries, values, strict=True)]
        for name, values in seconds.items()
    }


def _start(arguments: Sequence[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    main(parser.parse_args().repeats)
