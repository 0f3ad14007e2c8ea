from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from vlbench.core.profile import (
    Latency,
    Machine,
    Memory,
    ModelProfile,
    Operations,
    Parameters,
    ProfileRecord,
    ProfileSpec,
    Query,
    Rate,
    Ratio,
    Times,
)  # fmt: skip
from vlbench.core.record import RunRecord
from vlbench.report.speed import speed_table
from vlbench.report.speed_pictures import front_picture, pareto, stages_picture


def times(p50: float) -> Times:
    return Times(n=9, p50=p50, p90=p50, p95=p50, p99=p50, mean=p50, stdev=0.0, ci95=(0.9 * p50, 1.1 * p50))


def model(name: str, visual: str, stages: dict[str, float], **changed: object) -> ModelProfile:
    latency = Latency(
        stages={stage: times(ms) for stage, ms in stages.items()},
        model=times(sum(ms for stage, ms in stages.items() if stage != "decode")),
        whole=times(sum(stages.values())),
        rest=0.01,
        why_stopped="precise",
        warmup_ms=(1.0,),
    )
    made = ModelProfile(model=name, size="base", visual=visual, latency=latency, tokens=(36, 14))
    return made.model_copy(update=changed)


@pytest.fixture
def profile(record: RunRecord) -> ProfileRecord:
    region = model(
        "cvlp", "regions", {"decode": 10.0, "detect RoI head": 4000.0, "see": 20.0, "fuse": 30.0},
        operations=Operations(stages={"detect RoI head": 1_700_000_000_000, "see": 5_000_000_000}, uncounted={}),
        parameters=Parameters(total=220_000_000, embeddings=23_000_000, stages={"see": 1_000_000}),
        memory=Memory(weights=900.0, activations=124.0),
        throughput=(Rate(batch=1, examples_per_second=0.2), Rate(batch=2, error="out of memory")),
        retrieval=(Query(how="cross-encoder", gallery=100, ms=50.0, measured=True),
                   Query(how="cross-encoder", gallery=1000, ms=500.0, measured=False)),
    )  # fmt: skip
    failed = ModelProfile(model="x|<b>", size="base", error="unknown model")
    return ProfileRecord(
        spec=ProfileSpec(models=("cvlp", "vilt", "x|<b>")),
        tool=record.tool,
        environment=record.environment,
        machine=Machine(cores=2, threads=2, load=3.0, noisy=True, reasons=("a load of 3.00",)),
        models=(region, model("vilt", "patches", {"decode": 10.0, "see": 1.0, "fuse": 99.0}), failed),
        ratios=(Ratio(of="cvlp-base", to="vilt-base", value=40.5, ci95=(40.0, 41.0)),),
        started="2026-01-02T03:04:05Z",
        seconds=1.0,
    )


def test_the_table(profile: ProfileRecord) -> None:
    text = speed_table(profile)
    row = next(line for line in text.splitlines() if line.startswith("| cvlp-base"))
    cells = [part.strip() for part in row.split("|")[1:-1]]
    assert cells == [
        "cvlp-base", "region", "36 + 14", "220", "1,705", "4,020", "4,050 [3,645, 4,455]", "4,060", "0.20 at 1", "1.00",
    ]  # fmt: skip
    assert "cvlp-base takes 40.5 [40.0, 41.0] times as long as vilt-base" in text
    assert "NOISY, do not quote: a load of 3.00" in text
    assert "unknown model" in text
    galleries = next(line for line in text.splitlines() if "cross-encoder" in line)
    assert [part.strip() for part in galleries.split("|")[3:-1]] == ["50.0", "~500"]


def test_a_hostile_name_breaks_no_table(profile: ProfileRecord) -> None:
    columns = {line.replace("\\|", "").count("|") for line in speed_table(profile).splitlines()[3:7]}
    assert columns == {11}


def test_pictures(profile: ProfileRecord, record: RunRecord, tmp_path: Path) -> None:
    record = record.model_copy(update={"task": record.task.model_copy(update={"main_metric": "accuracy"})})
    runs = [
        record.model_copy(update={"model": record.model.model_copy(update={"name": name, "size": size})})
        for name, size in (("cvlp", "base"), ("vilt", "base"), ("vilt", "tiny"))
    ]
    paths = [*stages_picture(profile, tmp_path), *front_picture(profile, runs, tmp_path)]
    assert [path.name for path in paths] == ["stages.png", "stages.svg", "front.png", "front.svg"]
    assert all(path.stat().st_size > 1000 for path in paths)
    before = [path.read_bytes() for path in paths if path.suffix == ".svg"]
    ElementTree.fromstring(before[0])
    assert stages_picture(profile.model_copy(update={"models": profile.models[2:]}), tmp_path) == []
    assert front_picture(profile, runs[2:], tmp_path) == []


def test_the_front() -> None:
    points = [(3.0, 70.0), (1.0, 60.0), (2.0, 50.0), (1.0, 55.0), (4.0, 70.0), (5.0, 80.0)]
    assert pareto(points) == [(1.0, 60.0), (3.0, 70.0), (5.0, 80.0)]
