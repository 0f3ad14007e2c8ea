from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from vlbench import __version__
from vlbench.core.cards import Recipe
from vlbench.core.profile import (
    GalleryQuery,
    Latency,
    Machine,
    Memory,
    ModelProfile,
    Operations,
    Parameters,
    ProfileRecord,
    ProfileSpec,
    Rate,
    Ratio,
    Times,
)  # fmt: skip
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
from vlbench.records.collect import collect
from vlbench.records.folder import RunFolder
from vlbench.records.samples import SampleRow, write_samples
from vlbench.report.tables.leaderboard import Board, Choice, board

METHOD = "bootstrap clustered by group"


def _part(value: float, n: int) -> Result:
    return Result(metric="accuracy", value=value, n=n, ci95=(value - 5, value + 5), method=METHOD)


@pytest.fixture
def record() -> RunRecord:
    """A whole run of the built-in world with a blind control and one slice."""
    accuracy = Result(
        metric="accuracy",
        value=58.325,
        n=4000,
        ci95=(56.7512, 59.9),
        method=METHOD,
        slices={"kind": {"count": _part(55.5, 400), "spatial": _part(61.25, 3600)}},
    )
    blind = Result(metric="accuracy", value=50.0, n=4000, slices={"kind": {"count": _part(50.0, 400)}})
    return RunRecord(
        status="done",
        fingerprint="0123456789abcdef",
        spec=RunSpec(task="nlvr2", model="cvlp", size="tiny", controls=("blind",)),
        tool=ToolInfo(version="0.1.0"),
        model=ModelInfo(name="cvlp", size="tiny", parameters=1, from_scratch=True),
        task=TaskInfo(
            name="nlvr2", version=1, source="world", manifest_sha256="m", split="test-p", n_total=4000, n_scored=4000
        ),
        environment=Environment(python="3.11.9", libraries={}, cpu="cpu", threads=2),
        started="2026-01-02T03:04:05Z",
        train=TrainInfo(
            recipe=Recipe(), train_split="train", selected_on="dev", steps=1, effective_batch=1, best_step=1,
            weights="plain", seed=0,
        ),
        results=(accuracy, Result(metric="consistency", value=12.5, n=1000)),
        controls={"blind": (blind,)},
        majority=50.0,
        coverage=Coverage(expected=4000, scored=4000),
        efficiency=Efficiency(examples_per_second=1812.5, latency_ms={}, peak_memory_mib=1.0, seconds={}),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a run's files may be put."""
    made = tmp_path / "run"
    made.mkdir()
    return made


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path, record: RunRecord) -> MakeRun:
    """Write a run folder whose examples scored what is given; groups of `together` examples follow each other."""

    def make(
        name: str,
        scores: Sequence[float],
        *,
        together: int = 1,
        seed: int = 0,
        model: str = "cvlp",
        answers: Sequence[str] | None = None,
        references: Sequence[str] | None = None,
        margin: float = 0.5,
        **changed: Any,
    ) -> Path:
        said = answers or [str(score) for score in scores]
        right = references or ["True"] * len(scores)
        rows = [
            SampleRow(
                example_id=f"e{place:04}", split="test-p", group=f"g{place // together}", text=f"question {place}",
                image_ids=(), reference=json.dumps({"value": right[place]}), prediction=said[place], confidence=None,
                score=score, status="ok", error="", labels=(said[place], "other"),
                label_scores=(0.5 + margin / 2, 0.5 - margin / 2), tags={"kind": ("even", "odd")[place % 2]},
            )
            for place, score in enumerate(scores)
        ]  # fmt: skip
        values = {row.example_id: float(row.score or 0) for row in rows}
        found = mean_score("accuracy", values, {row.example_id: row.group for row in rows})
        result = Result(
            metric="accuracy", value=found.value, n=found.n, stderr=found.stderr, ci95=found.ci95, method=found.method
        )
        task = record.task.model_copy(update={"n_total": len(rows), "n_scored": len(rows), "main_metric": "accuracy"})
        made = record.model_copy(
            update={
                "fingerprint": hashlib.sha256(f"{name}{seed}".encode()).hexdigest()[:16],
                "spec": record.spec.model_copy(update={"seed": seed, "controls": ()}),
                "model": record.model.model_copy(update={"name": model, "from_scratch": False}),
                "task": task,
                "results": (result,),
                "controls": {},
                "tool": ToolInfo(version=__version__),
            }
        )
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        write_samples(folder / "samples.parquet", rows)
        RunFolder(folder).write_record(made.model_copy(update=changed))
        return folder

    return make


@pytest.fixture
def made_board() -> Callable[..., Board]:
    """The board of runs."""

    def make(runs: list[Path], pareto: str = "") -> Board:
        found = collect(runs)
        return board(found.runs, found.faults, Choice(pareto=pareto), __version__, {})

    return make


def _times(p50: float) -> Times:
    return Times(n=9, p50=p50, p90=p50, p95=p50, p99=p50, mean=p50, stdev=0.0, ci95=(0.9 * p50, 1.1 * p50))


def _profiled(name: str, visual: str, stages: dict[str, float], **changed: object) -> ModelProfile:
    latency = Latency(
        stages={stage: _times(ms) for stage, ms in stages.items()},
        model=_times(sum(ms for stage, ms in stages.items() if stage != "decode")),
        whole=_times(sum(stages.values())),
        rest=0.01,
        why_stopped="precise",
        warmup_ms=(1.0,),
    )
    made = ModelProfile(model=name, size="base", visual=visual, latency=latency, tokens=(36, 14))
    return made.model_copy(update=changed)


@pytest.fixture
def profile(record: RunRecord) -> ProfileRecord:
    """Of a region model, one of patches, and one that failed, on a noisy machine."""
    region = _profiled(
        "cvlp", "regions", {"decode": 10.0, "detect RoI head": 4000.0, "see": 20.0, "fuse": 30.0},
        operations=Operations(stages={"detect RoI head": 1_700_000_000_000, "see": 5_000_000_000}, uncounted={}),
        parameters=Parameters(total=220_000_000, embeddings=23_000_000, stages={"see": 1_000_000}),
        memory=Memory(weights=900.0, activations=124.0),
        throughput=(Rate(batch=1, examples_per_second=0.2), Rate(batch=2, error="out of memory")),
        retrieval=(GalleryQuery(how="cross-encoder", gallery=100, ms=50.0, measured=True),
                   GalleryQuery(how="cross-encoder", gallery=1000, ms=500.0, measured=False)),
    )  # fmt: skip
    failed = ModelProfile(model="x|<b>", size="base", error="unknown model")
    return ProfileRecord(
        spec=ProfileSpec(models=("cvlp", "vilt", "x|<b>")),
        tool=record.tool,
        environment=record.environment,
        machine=Machine(cores=2, threads=2, load=3.0, noisy=True, reasons=("a load of 3.00",)),
        models=(region, _profiled("vilt", "patches", {"decode": 10.0, "see": 1.0, "fuse": 99.0}), failed),
        ratios=(Ratio(of="cvlp-base", to="vilt-base", value=40.5, ci95=(40.0, 41.0)),),
        started="2026-01-02T03:04:05Z",
        seconds=1.0,
    )
