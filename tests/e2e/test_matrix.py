"""Every model on every task of the world that it can do, from the command line; what it cannot do is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlbench import catalog
from vlbench.records.folder import read_run
from vlbench.report.tables.results import number
from vlbench.world.generate import world_info

Call = Callable[..., Any]


@pytest.mark.parametrize("model", catalog.model_folders())
def test_every_task_of_the_world(model: str, vlbench: Call, tiny_world: Path, tmp_path: Path) -> None:
    outputs = catalog.model_card(model).outputs
    tasks = sorted(world_info(tiny_world).counts)
    able = [task for task in tasks if catalog.task_card(task).output in outputs]
    assert able
    done = vlbench(
        "run", "--task", ",".join(tasks), "--model", model, "--data-root", tiny_world, "--steps", 2, "--batch-size", 12,
        "--controls", "none", "--select-on", "none", "--limit", 0.1, "--output-path", tmp_path, "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    records = [read_run(path.parent) for path in sorted(tmp_path.glob("*/*/*/run.json"))]
    assert [record.task.name for record in records] == able
    for record in records:
        assert (record.status, record.model.name) == ("done", model)
        assert record.coverage is not None and record.coverage.scored == record.coverage.expected > 0
        assert record.results and all(result.value >= 0 for result in record.results)
    left_out = [line for line in done.err.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == len(tasks) - len(able)
    lines = done.out.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("| model "))
    scoreboard = lines[start : start + 3]
    cells = [line.strip("|").split("|") for line in scoreboard]
    for task, record in zip(able, records, strict=True):
        column = next(place for place, name in enumerate(cells[0]) if name.split()[:1] == [task])
        main = record.result(catalog.task_card(task).main_metric)
        assert main is not None and cells[2][column].split()[0] == number(main.value)
    assert cells[2][0].strip() == f"{model}-tiny"


def test_two_models_side_by_side(vlbench: Call, quick: list[object]) -> None:
    done = vlbench(*quick, "--model", "fake,cvlp")
    lines = done.out.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("| model "))
    header, _, fake, cvlp = lines[start : start + 4]
    assert lines[start - 2] == "built-in world"
    assert lines[start + 5] == "fake-tiny on nlvr2: trained from scratch, without pretrained weights"
    assert header.split("|")[2].strip() == "nlvr2 test-p accuracy"
    for line, name in ((fake, "fake"), (cvlp, "cvlp")):
        record = read_run(next(Path(path) for path in done.out.splitlines() if f"/{name}-tiny/" in path))
        assert f"{record.results[0].value:.2f} [" in line and line.startswith(f"| {name}-tiny")


def test_nothing_that_can_be_done(vlbench: Call, tmp_path: Path) -> None:
    done = vlbench("run", "--task", "vqa2,gqa", "--model", "cvlp", "--mode", "zero-shot", "--output-path", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "cvlp has no way to answer vqa2 zero-shot" in done.err and not list(tmp_path.iterdir())
