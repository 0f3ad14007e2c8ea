from __future__ import annotations

from pathlib import Path

import pytest

from vlbench.core.errors import VlbenchError
from vlbench.core.record import Environment, ModelInfo, RunRecord, TaskInfo, ToolInfo
from vlbench.core.spec import RunSpec
from vlbench.engine.image_paths import picture_files
from vlbench.records.folder import RunFolder

HERE = RunFolder(Path("runs"))


def of(data_root: Path | None) -> RunRecord:
    return RunRecord(
        status="done", fingerprint="f", spec=RunSpec(task="nlvr2", model="fake", data_root=data_root),
        tool=ToolInfo(version="0"), model=ModelInfo(name="fake", size="tiny", parameters=1, from_scratch=True),
        task=TaskInfo(
            name="nlvr2", version=1, source="world", manifest_sha256="", split="test-p", n_total=1, n_scored=1
        ),
        environment=Environment(python="3", libraries={}, cpu="", threads=1), started="",
    )  # fmt: skip


def test_pictures_and_texts_of_the_records_split(tiny_world: Path) -> None:
    for found in (picture_files(HERE, of(tiny_world)), picture_files(HERE, of(None), tiny_world)):
        assert found.absent == ""
        assert found.texts
        assert all(path.is_file() for path in found.paths.values())


def test_data_that_is_gone_is_said_and_data_asked_for_is_needed(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert str(gone) in picture_files(HERE, of(gone)).absent
    with pytest.raises(VlbenchError, match="gone"):
        picture_files(HERE, of(None), gone)


def test_a_world_is_not_made_for_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLBENCH_CACHE", str(tmp_path))
    assert "vlbench data world" in picture_files(HERE, of(None)).absent
    assert list(tmp_path.iterdir()) == []
