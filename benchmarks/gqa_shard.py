"""What a shard of 1.4 million GQA questions costs to load and to go through: seconds, and the most memory held.

    python benchmarks/gqa_shard.py [--questions N]

The shard is generated in the official format, with records as long as real ones. It is loaded twice, each time in a
process of its own: the first load writes the index into an empty cache, the second finds it there.
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
    """Generate, load twice, print a table."""
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
        for what in ("first load, index written", "second load, index found"):
            environment = os.environ | {"VLBENCH_CACHE": str(root / "cache")}
            command = [sys.executable, __file__, "--load", str(root / "data")]
            print(f"{what}: {subprocess.check_output(command, env=environment, text=True).strip()}")


def load(root: Path) -> None:
    """Load the split and go through it once; print seconds and memory of this process."""
    from vlbench.engine.source import load_task

    started = time.process_time()
    examples = load_task("gqa", root, allow_partial=True).load("train_all")
    loaded = time.process_time()
    words = sum(len(example.query.text.split()) for example in examples)
    done = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"load {loaded - started:.1f} CPU-s, one pass over {len(examples):,} examples ({words:,} words) "
        f"{done - loaded:.1f} CPU-s, at most {peak:,.0f} MiB"
    )


def write_shard(path: Path, questions: int) -> None:
    """Records with all the official keys; question ids have leading zeros, as some real ones have."""
    toss = random.Random(0)
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8") as file:
        file.write("{")
        for number in range(questions):
            name = f"{number:08d}"
            file.write(f"{', ' if number else ''}{json.dumps(name)}: {json.dumps(record(name, toss))}")
        file.write("}")


def record(name: str, toss: random.Random) -> dict[str, object]:
    """One record of about a kilobyte, as the official ones have it."""
    colour, thing, other = toss.choice(COLOURS), toss.choice(THINGS), toss.choice(THINGS)
    picture, one, two = str(toss.randrange(74_000)), str(toss.randrange(10**6)), str(toss.randrange(10**6))
    semantic = [
        {"operation": "select", "dependencies": [], "argument": f"{other} ({one})"},
        {"operation": "relate", "dependencies": [0], "argument": f"{thing},to the left of,s ({two})"},
        {"operation": "query", "dependencies": [1], "argument": "color"},
    ]
    return {
        "semantic": semantic,
        "entailed": [f"{toss.randrange(10**8):08d}" for _ in range(toss.randrange(12))],
        "equivalent": [name],
        "question": f"What color is the {thing} to the left of the {other}?",
        "imageId": picture,
        "isBalanced": toss.random() < 0.07,
        "groups": {"global": f"{thing}-color", "local": f"10-{thing}_{other}"},
        "answer": colour,
        "semanticStr": f"select: {other} ({one})->relate: {thing},to the left of,s ({two}) [0]->query: color [1]",
        "annotations": {"answer": {}, "question": {"4": two, "10": one}, "fullAnswer": {"1": two}},
        "types": {"detailed": "relS", "semantic": "attr", "structural": "query"},
        "fullAnswer": f"The {thing} is {colour}.",
    }


if __name__ == "__main__":
    main()
