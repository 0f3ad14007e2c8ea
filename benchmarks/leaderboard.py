"""Time of the commands that read records, over many of them: leaderboard, list, export; compare and gate over big runs.

Run as `python benchmarks/leaderboard.py`. Every command is a process of its own, so that what it imports counts; its
time is that of the CPU, and the modules it loaded are looked at: none of them may be torch. Records are of 40 models,
four tasks and their seeds, with as many slices as those tasks have; the big runs have 20,000 examples and three seeds.
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

from sides import spread

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
"""Task -> tag -> into how many parts it cuts the main metric."""
MODELS = 40
EXAMPLES, SEEDS = 20_000, 3

_CALL = """
import sys
from vlbench.cli.main import main
code = main(sys.argv[1:])
sys.exit("torch was loaded" if "torch" in sys.modules else code)
"""


def main() -> None:
    """Write records and runs, time every command over them, print a line for each."""
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
            print(f"{spread(seconds)} CPU s: vlbench {shown}")


def commands(folder: Path) -> list[list[str]]:
    """What is timed; making the baseline is timed too, and comes first."""
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
    """Of one process, with all it imports.

    Raises:
        RuntimeError: it failed, or loaded torch; an inconclusive gate has done its work.
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
    """So many finished records without samples."""
    chance = random.Random(0)
    places = [(task, model, seed) for seed in range(count) for model in range(MODELS) for task in TASKS]
    for number, (task, model, seed) in enumerate(places[:count]):
        values = {metric: chance.uniform(40, 70) for metric in (TASKS[task], "other", "another")}
        results = tuple(
            Result(**measured(metric, value), slices=cut(task, metric, value) if metric == TASKS[task] else {})
            for metric, value in values.items()
        )
        write(folder / task / f"{number:04}", record(task, f"model{model:02}", seed, number, results))


def cut(task: str, metric: str, value: float) -> dict[str, dict[str, Result]]:
    """The parts of a result."""
    return {
        tag: {f"{tag} {part}": Result(**measured(metric, value)) for part in range(parts)}
        for tag, parts in SLICES[task].items()
    }


def measured(metric: str, value: float) -> dict[str, object]:
    """The fields of a result but its slices."""
    interval = (value - 1, value + 1)
    return {"metric": metric, "value": value, "n": 1000, "stderr": 0.5, "ci95": interval, "method": "bootstrap"}


def write_runs(folder: Path) -> None:
    """Two systems of three seeds each, the second one right a little more often, with the samples that say so."""
    for system in range(2):
        for seed in range(SEEDS):
            chance = random.Random(f"{system}/{seed}")
            right = [float(chance.random() < 0.6 + 0.02 * system) for _ in range(EXAMPLES)]
            path, number = folder / f"{system}-{seed}", SEEDS * system + seed
            values = {f"e{place}": score for place, score in enumerate(right)}
            found = mean_score("accuracy", values, {name: f"g{int(name[1:]) // 4}" for name in values})
            result = Result(
                metric="accuracy", value=found.value, n=found.n, stderr=found.stderr, ci95=found.ci95,
                method=found.method,
            )  # fmt: skip
            write(path, record("nlvr2", f"model{system}", seed, number, (result,)))
            write_samples(path / "samples.parquet", [row(place, score) for place, score in enumerate(right)])


def row(place: int, score: float) -> SampleRow:
    """An example's; four share a group."""
    said = "True" if score else "False"
    return SampleRow(
        example_id=f"e{place}", split="test-p", group=f"g{place // 4}", text=f"sentence {place}", image_ids=(),
        reference='{"value": "True"}', prediction=said, confidence=0.8, score=score, status="ok", error="",
        labels=("True", "False"), label_scores=(0.2 + 0.6 * score, 0.8 - 0.6 * score), tags={"kind": str(place % 12)},
    )  # fmt: skip


def record(task: str, model: str, seed: int, number: int, results: tuple[Result, ...]) -> RunRecord:
    """A finished run of a trained model on a whole split."""
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


def write(folder: Path, made: RunRecord) -> None:
    """The record into a folder of its own."""
    folder.mkdir(parents=True)
    RunFolder(folder).write_record(made)


if __name__ == "__main__":
    main()
