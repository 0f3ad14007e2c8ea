from __future__ import annotations

from pathlib import Path

import pytest

from vlbench.core.cards import Recipe
from vlbench.core.record import (
    Coverage,
    Efficiency,
    Environment,
    LoadReport,
    ModelInfo,
    Result,
    RunRecord,
    TaskInfo,
    ToolInfo,
    TrainInfo,
)
from vlbench.core.spec import RunSpec


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    return RunSpec(task="nlvr2", model="cvlp", size="tiny", controls=("blind",), output_path=tmp_path / "runs")


@pytest.fixture
def record(spec: RunSpec) -> RunRecord:
    """Every field filled, awkward strings and floats among them."""
    part = Result(metric="accuracy", value=100 / 3, n=3, stderr=0.1, ci95=(1.0, 99.5), method="bootstrap")
    return RunRecord(
        status="done",
        fingerprint="0123456789abcdef",
        spec=spec.model_copy(update={"limit": 0.1, "train": Recipe(lr=3e-5)}),
        tool=ToolInfo(version="0.1.0", commit="c" * 40, dirty=True),
        model=ModelInfo(
            name="cvlp",
            size="tiny",
            parameters=520_000,
            from_scratch=False,
            weights_sha256="a" * 64,
            load_report=LoadReport(matched=3, missing=1, unexpected=0),
            preprocessing={"regions": 36, "mean": 0.5, "extractor": "flat-1"},
        ),
        task=TaskInfo(
            name="nlvr2",
            version=1,
            source="world",
            manifest_sha256="b" * 64,
            split="test-p",
            n_total=4000,
            n_scored=400,
            limit=0.1,
            notes=("größer | als\nnötig",),
        ),
        environment=Environment(python="3.11.9", libraries={"torch": "2.13.0"}, cpu="some cpu", threads=2),
        started="2026-01-02T03:04:05Z",
        seconds=0.1 + 0.2,
        train=TrainInfo(
            recipe=Recipe(lr=3e-5, steps=10),
            train_split="train",
            selected_on="dev",
            steps=10,
            effective_batch=64,
            best_step=5,
            weights="ema",
            seed=0,
        ),
        results=(part.model_copy(update={"slices": {"kind": {"count": part}}}),),
        controls={"blind": (part,)},
        majority=50.0,
        coverage=Coverage(expected=400, scored=400),
        efficiency=Efficiency(
            examples_per_second=812.5, latency_ms={"p50": 1.5}, peak_memory_mib=300.25, seconds={"train": 60.0}
        ),
    )
