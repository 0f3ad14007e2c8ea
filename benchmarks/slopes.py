"""CPU seconds and peak memory of a whole run over n, 2n, 4n and 8n questions of VQA v2.0 and GQA, with a plot.

    python benchmarks/slopes.py [--questions N] [--sizes K] [--task vqa2 | gqa]

A run is `vlbench run` with the model `fake`: load, train 20 steps on a thousand questions, answer all, score, record.
The questions are generated in the official formats, about images that do not exist. Each run is a process of its own
with an empty cache; the sizes lie on both sides of the size of annotations above which examples are kept in an index.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gqa_shard import write_shard
from vqa_accuracy import IMAGES, generate_questions

SPLITS = {"vqa2": "val", "gqa": "val_all"}
QUESTIONS = {"vqa2": 26_000, "gqa": 50_000}
TRAINED, FIRST = 1_000, 90_000_000
"""How many questions are trained on, and the number of the first of them."""


@dataclass(frozen=True)
class Point:
    """A run. questions: answered. load: CPU seconds until the data is loaded; total: of the whole process."""

    questions: int
    mib: float
    indexed: bool
    load: float
    total: float
    peak_mib: float


def main() -> None:
    """Run all sizes, print a table for each task and write the plot beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=SPLITS, action="append")
    parser.add_argument("--questions", type=int, help="of the smallest run")
    parser.add_argument("--sizes", type=int, default=4, help="how often the number is doubled, and one")
    parser.add_argument("--plot", type=Path, default=Path(__file__).with_suffix(".svg"))
    parser.add_argument("--run", nargs=2, metavar=("TASK", "ROOT"), help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.run:
        run_once(wanted.run[0], Path(wanted.run[1]))
        return
    points = {
        task: [measure_run(task, (wanted.questions or QUESTIONS[task]) << step) for step in range(wanted.sizes)]
        for task in wanted.task or SPLITS
    }
    write_plot(wanted.plot, points)


def ratios(repeats: int) -> dict[str, list[float]]:
    """Twice the CPU seconds of n questions over those of 2n, where only the larger run reads an index: 1 is linear."""
    pairs: dict[str, list[float]] = {task: [] for task in SPLITS}
    for _ in range(repeats):
        for task, values in pairs.items():
            small, large = (measure_run(task, count) for count in (25_000, 50_000))
            values.append(2 * small.total / large.total)
    return {f"a run over twice as many questions, {task}": values for task, values in pairs.items()}


def measure_run(task: str, questions: int) -> Point:
    """Generate the questions, run, and print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        size = WRITERS[task](Path(folder) / "data", questions)
        environment = os.environ | {"VLBENCH_CACHE": f"{folder}/cache", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--run", task, folder]
        output = subprocess.check_output(command, env=environment, text=True, stderr=subprocess.DEVNULL)
    point = Point(questions, size / 2**20, **json.loads(output.splitlines()[-1]))
    print(
        f"{task}, {questions:,} questions ({point.mib:,.0f} MiB, {'index' if point.indexed else 'list'}): "
        f"load {point.load:.1f}, total {point.total:.1f} CPU-s ({point.total / questions * 1e6:,.0f} us each), "
        f"peak {point.peak_mib:,.0f} MiB",
        flush=True,
    )
    return point


def run_once(task: str, folder: Path) -> None:
    """The run itself; prints its measures as JSON."""
    from vlbench.core.progress import Silent
    from vlbench.core.spec import RunSpec
    from vlbench.data.cache.index import IndexedExamples
    from vlbench.engine.execute import execute
    from vlbench.engine.job import plan
    from vlbench.records.folder import RunFolder
    from vlbench.records.provenance import peak_memory_mib

    spec = RunSpec(
        task=task, model="fake", size="tiny", split=SPLITS[task], select_on="none", data_root=folder / "data",
        output_path=folder / "runs", allow_partial=True, device="cpu", threads=1, eval_batch_size=256, controls=(),
    )  # fmt: skip
    started = time.process_time()
    job = plan(spec, Silent())
    load = time.process_time() - started
    execute(job, RunFolder.create(job.spec, job.fingerprint, job.card.name), Silent())
    indexed = isinstance(job.report, IndexedExamples)
    measures = {"indexed": indexed, "load": load, "total": time.process_time(), "peak_mib": peak_memory_mib()}
    print(json.dumps(measures))


def write_vqa(root: Path, questions: int) -> int:
    """Write the official files of train and val; returns the bytes of val."""
    root.mkdir(parents=True)
    return [_write_vqa(root, part, count) for part, count in (("train", TRAINED), ("val", questions))][1]


def _write_vqa(root: Path, part: str, questions: int) -> int:
    generated, _ = generate_questions(questions)
    rng, first = random.Random(0), FIRST if part == "train" else 0
    places = sorted(rng.randrange(IMAGES) for _ in generated)  # questions about one image follow each other
    annotations = [
        {
            **annotation,
            "question_id": first + number,
            "image_id": place,
            "multiple_choice_answer": annotation["answers"][0]["answer"],
        }
        for number, (place, annotation) in enumerate(zip(places, generated, strict=True))
    ]
    subtype = f"{part}2014"
    asked = [
        {"image_id": each["image_id"], "question_id": each["question_id"], "question": _question(rng)}
        for each in annotations
    ]
    head = {"info": {}, "license": {}, "data_type": "mscoco", "data_subtype": subtype}
    paths = root / f"v2_OpenEnded_mscoco_{subtype}_questions.json", root / f"v2_mscoco_{subtype}_annotations.json"
    paths[0].write_text(json.dumps({**head, "task_type": "Open-Ended", "questions": asked}))
    paths[1].write_text(json.dumps({**head, "annotations": annotations}))
    return sum(path.stat().st_size for path in paths)


def _question(rng: random.Random) -> str:
    things = ("man", "woman", "dog", "bus", "table", "plate", "train", "horse", "sign", "bench")
    return f"What is the {rng.choice(things)} near the {rng.choice(things)} {rng.choice(('doing', 'made of', 'for'))}?"


def write_gqa(root: Path, questions: int) -> int:
    """Write the official files of train and val_all; returns the bytes of val_all."""
    write_shard(root / "train_balanced_questions.json", TRAINED, first=FIRST)
    path = root / "val_all_questions.json"
    write_shard(path, questions)
    return path.stat().st_size


WRITERS = {"vqa2": write_vqa, "gqa": write_gqa}


def write_plot(path: Path, points: Mapping[str, Sequence[Point]]) -> None:
    """CPU seconds and peak memory over questions, a line per task; a ring marks the runs that read an index."""
    from vlbench.data.cache.folder import atomic_write
    from vlbench.report.drawing import chart_style, color, new_figure, svg_document

    with chart_style():
        figure = new_figure(760, 320)
        for axes, quantity, name in zip(
            figure.subplots(1, 2), ("total", "peak_mib"), ("CPU seconds", "peak memory, MiB"), strict=True
        ):
            for task, shade in zip(points, ("s1", "s2"), strict=False):
                counts = [point.questions for point in points[task]]
                values = [getattr(point, quantity) for point in points[task]]
                axes.plot(counts, values, color=color(shade), marker="o", markersize=4, label=task)
                rings = [number for number, point in enumerate(points[task]) if point.indexed]
                axes.plot(
                    counts, values, "o", color=color(shade), markerfacecolor="none", markersize=9, markevery=rings
                )
            axes.set(xlabel="questions", title=name, xlim=(0, None), ylim=(0, None))
            axes.legend()
        figure.tight_layout()
        atomic_write(path, svg_document(figure, "A whole run over n, 2n, 4n and 8n questions") + "\n")


if __name__ == "__main__":
    main()
