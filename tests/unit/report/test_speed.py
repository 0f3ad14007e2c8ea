from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from vlbench.core.profile import ProfileRecord
from vlbench.core.record import RunRecord
from vlbench.report.speed import speed_table
from vlbench.report.speed_pictures import front_picture, pareto, stages_picture


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
