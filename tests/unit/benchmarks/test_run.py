"""Benchmarks can be imported, and ratios outside their recorded intervals are reported."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def run() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("run")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_a_benchmark_can_be_imported(name: str, run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module(name)
    assert module.__doc__
    assert hasattr(module, "ratios") == (name in run.scripts())
    if name in run.scripts():
        assert next(iter(inspect.signature(module.ratios).parameters)) == "repeats"
        assert run.scripts()[name] == getattr(module, "QUICK", False)


def test_a_ratio_is_judged_by_its_recorded_interval(run: ModuleType) -> None:
    record = run.Record(2.0, 1.6, 2.4, 5, "2026-01-01", "a machine")
    recorded = dict.fromkeys(("a", "b", "c", "gone"), record)
    measured = {"a": [1.0, 1.21, 9.0], "b": [1.0, 1.19, 9.0], "c": [3.1], "new": [1.0]}
    verdicts = {row.name: row.verdict for row in run.judge(recorded, measured, 0.25)}
    assert verdicts == {
        "a": "ok", "b": "slower", "c": "faster: record again", "gone": "not measured any more", "new": "not recorded",
    }  # fmt: skip
    assert {name for name, verdict in verdicts.items() if verdict in run.FAILURES} == {"b", "gone"}
    text = run.table(run.judge(recorded, measured, 0.25))
    assert "| b | 2.00 (1.60 to 2.40) | 1.19 | slower |" in text


@pytest.mark.parametrize(("ratio", "code"), [(1.6, 0), (1.0, 1)])
def test_the_exit_status_follows_from_the_verdicts(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ratio: float, code: int
) -> None:
    results = tmp_path / "results" / "cpu.json"
    monkeypatch.setattr(run, "scripts", lambda: {"quick": True, "slow": False})
    monkeypatch.setattr(run, "in_new_process", lambda script, repeats: {"a, b": [{"quick": ratio}.get(script, 3.0)]})
    run.write_records(results, {f"{name}: a, b": run.Record.of([2.0, 1.9, 2.1]) for name in ("quick", "slow", "old")})
    monkeypatch.setattr(sys, "argv", ["run.py", "--quick", "--results", str(results)])
    assert run.main() == code
    monkeypatch.setattr(sys, "argv", ["run.py", "--quick", "--results", str(results), "--update"])
    assert run.main() == 0
    medians = {name: record.median for name, record in run.read_records(results).items()}
    assert medians == {"old: a, b": 2.0, "quick: a, b": ratio, "slow: a, b": 2.0}


def test_only_a_ratio_that_is_too_low_twice_fails(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, ratios = tmp_path / "cpu.json", iter([1.0, 2.0])
    monkeypatch.setattr(run, "scripts", lambda: {"quick": True})
    monkeypatch.setattr(run, "in_new_process", lambda script, repeats: {"a": [next(ratios)]})
    run.write_records(results, {"quick: a": run.Record.of([2.0])})
    monkeypatch.setattr(sys, "argv", ["run.py", "--results", str(results)])
    assert run.main() == 0


def test_an_interval_that_holds_everything_is_not_recorded(run: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.recorded({"wide": [0.1, 1.0, 9.0], "narrow": [1.0, 1.1]}).keys() == {"narrow"}
    assert "wide" in capsys.readouterr().err
