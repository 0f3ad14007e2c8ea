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
        "cvlp-base", "region", "36 + 14", "220", "1,705", "4,020", "4,050 [3,645, 4,455]", "9", "4,060",
        "0.20 at 1", "1.00",
    ]  # fmt: skip
    assert "cvlp-base takes 40.5 [40.0, 41.0] times as long as vilt-base" in text
    assert "NOISY, do not quote: a load of 3.00" in text
    assert "unknown model" in text
    galleries = next(line for line in text.splitlines() if "cross-encoder" in line)
    assert [part.strip() for part in galleries.split("|")[3:-1]] == ["50.0", "~500"]


def test_a_hostile_name_breaks_no_table(profile: ProfileRecord) -> None:
    columns = {line.replace("\\|", "").count("|") for line in speed_table(profile).splitlines()[3:7]}
    assert columns == {12}


def few(record: ProfileRecord, n: int) -> ProfileRecord:
    """The record with its first model measured only so often."""
    one, *others = record.models
    assert one.latency is not None
    latency = one.latency.model_copy(update={"model": one.latency.model.model_copy(update={"n": n})})
    return record.model_copy(update={"models": (one.model_copy(update={"latency": latency}), *others)})


def test_below_six_iterations_there_is_no_interval(profile: ProfileRecord) -> None:
    assert "4,050 (range of 5: 3,645 to 4,455)" in speed_table(few(profile, 5))
    assert "4,050 (of 1)" in speed_table(few(profile, 1))
    said = "Ratios with their range in brackets, no interval: cvlp-base : vilt-base (n 5)."
    assert said in speed_table(few(profile, 5))
    assert "range" not in speed_table(few(profile, 6))


def test_seconds_that_were_used(profile: ProfileRecord) -> None:
    """60 s are the spec's."""
    assert "Took:" not in speed_table(profile)
    short = profile.model_copy(update={"spent": {"opening": 99.0, "latency": 60.5}})
    assert "Took: opening 99.0 s, latency 60.5 s; --max-seconds 60 is for each scenario." in speed_table(short)
    long = profile.model_copy(update={"spent": {"opening": 1.0, "latency": 70.0}})
    assert "latency 70.0 s; --max-seconds 60 is for each scenario; the least that was" in speed_table(long)


def test_what_no_stage_accounts_for_is_shown(profile: ProfileRecord) -> None:
    rows = [line.split("|") for line in speed_table(profile).splitlines() if "| rest " in line]
    assert [(row[1].strip(), row[3].strip()) for row in rows] == [
        ("cvlp-base", "1.00 % of the whole"),
        ("vilt-base", "1.00 % of the whole"),
    ]


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
