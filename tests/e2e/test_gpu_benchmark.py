"""`benchmarks/gpu.py` on a CPU, in tiny: it runs, and its rows hold what its table shows."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("models", ["vilt", pytest.param("vilt,cvlp", marks=pytest.mark.slow)])
def test_it_runs_on_a_cpu(
    models: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    output = tmp_path / "gpu.json"
    given = ["--size", "tiny", "--device", "cpu", "--models", models, "--output", str(output)]
    monkeypatch.setattr("sys.argv", ["gpu.py", *given])
    importlib.import_module("gpu").main()
    rows = json.loads(output.read_text())["rows"]
    assert len(rows) == 4 * len(models.split(",")) == capsys.readouterr().out.count("-tiny |")
    for row in rows:
        assert row["rate"] > 0 and row["syncs"] >= 0 and (row["memory_gib"], row["peak"]) == (None, None)
        assert (row["bare_over_engine"] is None) == (row["work"] == "scoring") == (row["coco_hours"] is not None)
