"""CPU time of commands that read many records (leaderboard, list, export) or large runs (compare, gate).

Run as `python benchmarks/leaderboard.py`. Every command runs in its own process, so that its imports count, and may
not import torch. The records are of 40 models, four tasks and several seeds, with as many slices as these tasks have;
the large runs have 20,000 examples and three seeds.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sides import format_spread

from vlbench import __version__
from vlbench.core.cards import Recipe
from vlbench.core.record import (
    Coverage,
    Efficiency,
    Environment,
    ModelInfo,
    Result,
    RunRecord,
    TaskInfo,
    ToolInfo,
    TrainInfo,
)
from vlbench.core.spec import RunSpec
from vlbench.metrics.uncertainty import mean_score
from vlbench.records.folder import RunFolder
from vlbench.records.samples import SampleRow, write_samples

TASKS = {"nlvr2": "accuracy", "vqa2": "vqa_accuracy", "gqa": "accuracy", "snli_ve": "accuracy"}
SLICES = {
    "nlvr2": {"kind": 12},
    "vqa2": {"answer_type": 3, "question_type": 65},
    "gqa": {"structural": 5, "semantic": 5, "length": 20, "steps": 9},
    "snli_ve": {"gold_label": 3, "kind": 8},
}
"""Task -> tag -> number of slices of the main metric."""
MODELS = 40
EXAMPLES, SEEDS = 20_000, 3

_CALL = """
import sys
from vlbench.cli.main import main
code = main(sys.argv[1:])
sys.exit("torch was loaded" if "torch" in sys.modules else code)
"""


def main() -> None:
    """Write records and runs, time every command on them, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_records(folder / "many", wanted.records)
        write_runs(folder / "big")
        for command in commands(folder):
            seconds = [cpu_seconds(command) for _ in range(wanted.repeats)]
            shown = " ".join(word.replace(str(folder), "") for word in command)
            print(f"{format_spread(seconds)} CPU s: vlbench {shown}")


def commands(folder: Path) -> list[list[str]]:
    """The commands to time; the one that makes the baseline comes before the one that needs it."""
    many, big, baseline = str(folder / "many"), folder / "big", str(folder / "baseline.json")
    forms = [["leaderboard", many, "--format", form] for form in ("md", "html", "csv", "latex", "json")]
    runs = sorted(map(str, big.iterdir()))
    return [
        *forms,
        ["list", "runs", "--output-path", many],
        ["export", many, "--to", "csv"],
        ["compare", *runs, "--by", "kind"],
        ["gate", str(big), "--baseline", baseline, "--update-baseline", "--reason", "measured"],
        ["gate", str(big), "--baseline", baseline],
    ]


def cpu_seconds(command: Sequence[str]) -> float:
    """CPU seconds of one process, with its imports.

    Raises:
        RuntimeError: it failed or imported torch; exit code 4 of an inconclusive gate is no failure.
    """
    before = _children()
    done = subprocess.run([sys.executable, "-c", _CALL, *command], capture_output=True, text=True, env=os.environ)
    if done.returncode not in (0, 4):
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_records(folder: Path, count: int) -> None:
    """Write `count` records of finished runs, without samples."""
    rng = random.Random(0)
    runs = [(task, model, seed) for seed in range(count) for model in range(MODELS) for task in TASKS]
    for number, (task, model, seed) in enumerate(runs[:count]):
        values = {metric: rng.uniform(40, 70) for metric in (TASKS[task], "other", "another")}
        results = tuple(
            make_result(metric, value, make_slices(task, metric, value) if metric == TASKS[task] else {})
            for metric, value in values.items()
        )
        write_record(folder / task / f"{number:04}", make_record(task, f"model{model:02}", seed, number, results))


def make_slices(task: str, metric: str, value: float) -> dict[str, dict[str, Result]]:
    """The slices of a result."""
    return {
        tag: {f"{tag} {part}": make_result(metric, value, {}) for part in range(parts)}
        for tag, parts in SLICES[task].items()
    }


def make_result(metric: str, value: float, slices: dict[str, dict[str, Result]]) -> Result:
    """A result with an interval, of 1,000 examples."""
    interval = (value - 1, value + 1)
    return Result(metric=metric, value=value, n=1000, stderr=0.5, ci95=interval, method="bootstrap", slices=slices)


def write_runs(folder: Path) -> None:
    """Write runs with samples of two systems with three seeds each; the second system is right a little more often."""
    for system in range(2):
        for seed in range(SEEDS):
            rng = random.Random(f"{system}/{seed}")
            right = [float(rng.random() < 0.6 + 0.02 * system) for _ in range(EXAMPLES)]
            path, number = folder / f"{system}-{seed}", SEEDS * system + seed
            values = {f"e{place}": score for place, score in enumerate(right)}
            mean = mean_score("accuracy", values, {name: f"g{int(name[1:]) // 4}" for name in values})
            result = Result(
                metric="accuracy", value=mean.value, n=mean.n, stderr=mean.stderr, ci95=mean.ci95,
                method=mean.method,
            )  # fmt: skip
            write_record(path, make_record("nlvr2", f"model{system}", seed, number, (result,)))
            write_samples(path / "samples.parquet", [make_row(number, score) for number, score in enumerate(right)])


def make_row(number: int, score: float) -> SampleRow:
    """The row of an example; four examples share a group."""
    prediction = "True" if score else "False"
    return SampleRow(
        example_id=f"e{number}", split="test-p", group=f"g{number // 4}", text=f"sentence {number}", image_ids=(),
        reference='{"value": "True"}', prediction=prediction, confidence=0.8, score=score, status="ok", error="",
        labels=("True", "False"), label_scores=(0.2 + 0.6 * score, 0.8 - 0.6 * score), tags={"kind": str(number % 12)},
    )  # fmt: skip


def make_record(task: str, model: str, seed: int, number: int, results: tuple[Result, ...]) -> RunRecord:
    """The record of a finished run of a fine-tuned model on a whole split."""
    return RunRecord(
        status="done", fingerprint=f"{number:016x}", spec=RunSpec(task=task, model=model, size="tiny", seed=seed),
        tool=ToolInfo(version=__version__),
        model=ModelInfo(name=model, size="tiny", parameters=10**6, from_scratch=False, weights_sha256="a" * 64),
        task=TaskInfo(
            name=task, version=1, source="world", manifest_sha256="b" * 64, split="test-p", n_total=EXAMPLES,
            n_scored=EXAMPLES, main_metric=TASKS[task],
        ),
        environment=Environment(python="3.11", libraries={}, cpu="a cpu", threads=1), started="2026-01-02T03:04:05Z",
        train=TrainInfo(
            recipe=Recipe(), train_split="train", selected_on="dev", steps=1, effective_batch=1, best_step=1,
            weights="plain", seed=seed,
        ),
        results=results, coverage=Coverage(expected=EXAMPLES, scored=EXAMPLES),
        efficiency=Efficiency(examples_per_second=1.0, latency_ms={"p50": 1.0}, peak_memory_mib=1.0, seconds={}),
    )  # fmt: skip


def write_record(folder: Path, record: RunRecord) -> None:
    """Write the record into a new folder."""
    folder.mkdir(parents=True)
    RunFolder(folder).write_record(record)


if __name__ == "__main__":
    main()
