"""Models and tasks of installed packages: known by name, and none of their code runs before they are named."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlbench.records.folder import read_run

Call = Callable[..., Any]
ANNOUNCED = """
[vlbench.models]
plugged_model = plugged_kit.plugged_model.backbone:PluggedModel
broken_model = plugged_absent.backbone:Broken
classless_model = plugged_kit.plugged_model.backbone
[vlbench.tasks]
plugged_task = plugged_kit.plugged_task.adapter:examples
"""


@pytest.fixture
def kit(vlbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with a model and a task, which leaves a trace when it is imported."""
    site = tmp_path / "site"
    for kind in ("model", "task"):
        vlbench("new", kind, f"plugged_{kind}", "--into", site / "plugged_kit")
        (site / "plugged_kit" / f"plugged_{kind}" / "__init__.py").touch()
    (site / "plugged_kit" / "__init__.py").write_text(f"open({str(site / 'imported')!r}, 'w').close()\n")
    notes = site / "plugged_kit-1.0.dist-info"
    notes.mkdir()
    (notes / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-kit\nVersion: 1.0\n")
    (notes / "entry_points.txt").write_text(ANNOUNCED)
    for name in [name for name in sys.modules if name.partition(".")[0] == "plugged_kit"]:
        monkeypatch.delitem(sys.modules, name)  # an earlier test's lies elsewhere
    monkeypatch.syspath_prepend(str(site))
    return site


def test_an_installed_model_and_task_run_by_their_names(
    kit: Path, vlbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ("--output-path", tmp_path / "runs", "--steps", 2, "--quiet", "--controls", "none")
    data = ("--data-root", kit / "plugged_kit" / "plugged_task" / "sample")
    copied = shutil.copytree(kit / "plugged_kit" / "plugged_task", tmp_path / "tasks" / "copied")
    (copied / "task.yaml").write_text((copied / "task.yaml").read_text().replace("name: plugged_task", "name: copied"))
    done = vlbench("run", "--task", "copied", "--tasks-dir", tmp_path / "tasks", "--model", "fake", *data, *place)
    assert done.code == 0 and vlbench("list", "models").code == 0
    assert not (kit / "imported").exists()
    done = vlbench("run", "--task", "plugged_task", "--model", "plugged_model", *data, *place)
    assert done.code == 0, done.err
    record = read_run(done.run)
    assert (record.task.name, record.model.name) == ("plugged_task", "plugged_model")
    assert (kit / "imported").exists()


def test_names_that_are_nearly_or_not_there(kit: Path, vlbench: Call, tmp_path: Path) -> None:
    done = vlbench("run", "--task", "nlvr2", "--model", "plugged_modle")
    assert done.code == 2 and "did you mean 'plugged_model'" in done.err
    done = vlbench("run", "--task", "nlvr2", "--model", "broken_model")
    assert done.code == 2 and done.err.count("\n") == 1
    assert "'broken_model' is announced by an installed package as plugged_absent.backbone:Broken" in done.err
    done = vlbench("run", "--task", "nlvr2", "--model", "classless_model")
    assert done.code == 2 and done.err.count("\n") == 1
    assert "as plugged_kit.plugged_model.backbone: expected package.module:Name" in done.err


def test_changed_code_is_not_done_already(kit: Path, vlbench: Call, tmp_path: Path) -> None:
    asked = ("run", "--task", "plugged_task", "--model", "plugged_model", "--steps", 2, "--controls", "none", "--quiet")
    place = ("--data-root", kit / "plugged_kit" / "plugged_task" / "sample", "--output-path", tmp_path / "runs")
    first = vlbench(*asked, *place).run
    assert vlbench(*asked, *place).run == first
    code = kit / "plugged_kit" / "plugged_model" / "backbone.py"
    code.write_text(code.read_text() + "# changed\n")
    assert vlbench(*asked, *place).run != first


def test_a_task_whose_module_cannot_be_imported_is_one_sentence(vlbench: Call, tmp_path: Path) -> None:
    vlbench("new", "task", "paint", "--into", tmp_path / "tasks")
    adapter = tmp_path / "tasks" / "paint" / "adapter.py"
    adapter.write_text("import vlbench.no_longer_there\n" + adapter.read_text())
    done = vlbench(
        "run", "--task", "paint", "--tasks-dir", tmp_path / "tasks", "--model", "fake", "--data-root", tmp_path
    )
    assert done.code == 13 and done.err.count("\n") == 1
    assert f"{adapter} cannot be imported (No module named 'vlbench.no_longer_there'): correct its imports" in done.err
