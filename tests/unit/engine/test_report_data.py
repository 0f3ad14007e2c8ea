from __future__ import annotations

from pathlib import Path

import pytest

from vlbench.core.errors import VlbenchError
from vlbench.core.record import Environment, ModelInfo, RunRecord, TaskInfo, ToolInfo
from vlbench.core.spec import RunSpec
from vlbench.engine.report_data import find_images
from vlbench.records.folder import RunFolder

HERE = RunFolder(Path("runs"))


def make_record(data_root: Path | None) -> RunRecord:
    return RunRecord(
        status="done", fingerprint="f", spec=RunSpec(task="nlvr2", model="fake", data_root=data_root),
        tool=ToolInfo(version="0"), model=ModelInfo(name="fake", size="tiny", parameters=1, from_scratch=True),
        task=TaskInfo(
            name="nlvr2", version=1, source="world", manifest_sha256="", split="test-p", n_total=1, n_scored=1
        ),
        environment=Environment(python="3", libraries={}, cpu="", threads=1), started="",
    )  # fmt: skip


def test_images_and_texts_of_the_records_split(tiny_world: Path) -> None:
    for files in (find_images(HERE, make_record(tiny_world)), find_images(HERE, make_record(None), tiny_world)):
        assert files.absent == ""
        assert files.texts
        assert all(path.is_file() for path in files.paths.values())


def test_missing_data_is_reported_and_is_an_error_for_a_given_root(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert str(gone) in find_images(HERE, make_record(gone)).absent
    with pytest.raises(VlbenchError, match="gone"):
        find_images(HERE, make_record(None), gone)


def test_no_world_is_generated_for_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLBENCH_CACHE", str(tmp_path))
    assert "vlbench data world" in find_images(HERE, make_record(None)).absent
    assert list(tmp_path.iterdir()) == []
