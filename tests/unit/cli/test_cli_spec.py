"""Names out of one flag."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlbench import catalog
from vlbench.cli.spec import split_models
from vlbench.core.errors import VlbenchError
from vlbench.report.published import results as published


def test_a_comma_in_a_path_separates_nothing(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    (tmp_path / "a,b" / "backbone.py").touch()
    for model in (f"hf:{tmp_path}/a,b", f"{tmp_path}/a,b/backbone.py:Mine"):
        assert split_models(model) == [model]
    assert split_models(f"hf:{tmp_path},vilt") == [f"hf:{tmp_path}", "vilt"]
    assert split_models("cvlp, vilt") == ["cvlp", "vilt"]


@pytest.mark.parametrize("text", ["hf:absent,", "cvlp,cvlp"])
def test_names_that_are_empty_or_twice(text: str) -> None:
    with pytest.raises(VlbenchError, match="--model"):
        split_models(text)


def test_a_key_given_twice_is_rejected_wherever_yaml_is_read(vlbench: Callable[..., Any], tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("task: nlvr2\nmodel: fake\ntrain:\n  steps: 1\n  lr: 1.0\n  steps: 2\n")
    done = vlbench("run", "--config", config)
    assert done.code == 2
    assert f"--config {config} gives the key 'steps' twice, in lines 4 and 6: leave one of them out" in done.err
    task = shutil.copytree(catalog.task_folders()["nlvr2"], tmp_path / "tasks" / "mine")
    lines = (task / "task.yaml").read_text(encoding="utf8").splitlines()
    place = next(row for row, line in enumerate(lines, start=1) if line.startswith("labels:"))
    (task / "task.yaml").write_text("\n".join([*lines, "labels: ['True', 'False']"]), encoding="utf8")
    done = vlbench("run", "--task", "mine", "--tasks-dir", tmp_path / "tasks", "--model", "fake")
    assert done.code == 2
    assert f"{task / 'task.yaml'} gives the key 'labels' twice, in lines {place} and {len(lines) + 1}" in done.err
    shutil.copy(catalog.model_folders()["fake"] / "model.yaml", tmp_path)
    with (tmp_path / "model.yaml").open("a", encoding="utf8") as card:
        card.write("\nvisual: regions\n")
    done = vlbench("run", "--task", "nlvr2", "--model", f"{tmp_path}/backbone.py:Mine")
    assert done.code == 2 and f"{tmp_path / 'model.yaml'} gives the key 'visual' twice" in done.err
    figures = tmp_path / "mine.yaml"
    figures.write_text("model: Mine\npaper: ''\nrows:\n  - variant: a\n    variant: b\n")
    with pytest.raises(VlbenchError, match=r"mine\.yaml gives the key 'variant' twice, in lines 4 and 5"):
        published._yaml(figures)
