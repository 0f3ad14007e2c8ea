"""The log of a killed and resumed training holds each step once."""

from __future__ import annotations

import json
from pathlib import Path

from vlbench.engine.training.metrics_log import MetricsLog
from vlbench.records.folder import RunFolder


def loss(step: int) -> dict[str, float | int | str]:
    return {"step": step, "loss": 1.0}


def selection(step: int, weights: str) -> dict[str, float | int | str]:
    return {"step": step, "weights": weights, "selection": 50.0}


def lines(folder: RunFolder) -> list[tuple[object, ...]]:
    read = map(json.loads, folder.metrics.read_text().splitlines())
    return [(line.get("control", ""), line["step"], line.get("weights", "")) for line in read]


def test_repeated_lines_are_dropped(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    killed = MetricsLog(folder)
    for line in (loss(1), loss(2), selection(2, "plain"), selection(2, "ema"), loss(3), loss(4)):
        killed(line)
    folder.metrics.write_text(folder.metrics.read_text() + '{"step": 5, "lo')  # torn
    again = MetricsLog(folder)
    again(loss(3))
    assert lines(folder) == [("", 1, ""), ("", 2, ""), ("", 2, "plain"), ("", 2, "ema"), ("", 3, "")]
    selecting = MetricsLog(folder)
    selecting(selection(2, "plain"))  # of a state that was saved before the selection
    selecting(selection(2, "ema"))
    assert lines(folder) == [("", 1, ""), ("", 2, ""), ("", 2, "plain"), ("", 2, "ema")]


def test_a_controls_lines_are_its_own(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    MetricsLog(folder)(loss(1))
    MetricsLog(folder, "blind")(loss(1))
    MetricsLog(folder, "blind")(loss(1))
    assert lines(folder) == [("", 1, ""), ("blind", 1, "")]
    MetricsLog(folder, writes=False)(loss(2))
    assert len(lines(folder)) == 2
