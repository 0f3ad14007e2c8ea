"""CPU time and peak memory to load and iterate over a shard of 1.4 million GQA questions.

    python benchmarks/gqa_shard.py [--questions N]

The shard is generated in the official format, with records as long as real ones. It is loaded twice, each time in its
own process: the first load writes the index into an empty cache, the second one reads it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COLOURS = ("red", "green", "blue", "brown", "white", "black", "gray", "yellow")
THINGS = ("car", "dog", "chair", "tree", "person", "bag", "window", "plate", "shirt", "sign")


def main() -> None:
    """Generate the shard, load it twice, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=1_400_000)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load is not None:
        load(arguments.load)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_shard(root / "data" / "train_all_questions.json", arguments.questions)
        size = (root / "data" / "train_all_questions.json").stat().st_size
        print(f"{arguments.questions:,} questions, {size / 2**20:,.0f} MiB")
        for what in ("first load, writes the index", "second load, reads the index"):
            environment = os.environ | {"VLBENCH_CACHE": str(root / "cache")}
            command = [sys.executable, __file__, "--load", str(root / "data")]
            print(f"{what}: {subprocess.check_output(command, env=environment, text=True).strip()}")


def load(root: Path) -> None:
    """Load the split and iterate over it once; print CPU seconds and peak memory of this process."""
    from vlbench.engine.source import load_task

    started = time.process_time()
    examples = load_task("gqa", root, allow_partial=True).load("train_all")
    loaded = time.process_time()
    words = sum(len(example.query.text.split()) for example in examples)
    done = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"load {loaded - started:.1f} CPU-s, one pass over {len(examples):,} examples ({words:,} words) "
        f"{done - loaded:.1f} CPU-s, peak memory {peak:,.0f} MiB"
    )


def write_shard(path: Path, questions: int, first: int = 0) -> None:
    """Write records with all official keys; question ids have leading zeros, as some real ones have."""
    rng = random.Random(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.write("{")
        for number in range(questions):
            name = f"{first + number:08d}"
            file.write(f"{', ' if number else ''}{json.dumps(name)}: {json.dumps(record(name, rng))}")
        file.write("}")


def record(name: str, rng: random.Random) -> dict[str, object]:
    """One record of about a kilobyte, like the official ones."""
    colour, thing, other = rng.choice(COLOURS), rng.choice(THINGS), rng.choice(THINGS)
    image, first, second = str(rng.randrange(74_000)), str(rng.randrange(10**6)), str(rng.randrange(10**6))
    semantic = [
        {"operation": "select", "dependencies": [], "argument": f"{other} ({first})"},
        {"operation": "relate", "dependencies": [0], "argument": f"{thing},to the left of,s ({second})"},
        {"operation": "query", "dependencies": [1], "argument": "color"},
    ]
    return {
        "semantic": semantic,
        "entailed": [f"{rng.randrange(10**8):08d}" for _ in range(rng.randrange(12))],
        "equivalent": [name],
        "question": f"What color is the {thing} to the left of the {other}?",
        "imageId": image,
        "isBalanced": rng.random() < 0.07,
        "groups": {"global": f"{thing}-color", "local": f"10-{thing}_{other}"},
        "answer": colour,
        "semanticStr": f"select: {other} ({first})->relate: {thing},to the left of,s ({second}) [0]->query: color [1]",
        "annotations": {"answer": {}, "question": {"4": second, "10": first}, "fullAnswer": {"1": second}},
        "types": {"detailed": "relS", "semantic": "attr", "structural": "query"},
        "fullAnswer": f"The {thing} is {colour}.",
    }


if __name__ == "__main__":
    main()
