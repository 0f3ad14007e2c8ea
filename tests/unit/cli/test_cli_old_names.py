"""`cache_pictures`, the old name of `cache_images`, in flags, YAML, `--set`, records and Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlbench.cli.run import make_specs
from vlbench.core.spec import PLACE, RunSpec
from vlbench.records.collect import collect

NOTE = "note: cache_pictures is deprecated, its name is cache_images\n"
BASE = {"task": "nlvr2", "model": "cvlp"}
RECORDS = Path(__file__).resolve().parents[3] / "leaderboards" / "world" / "records"


def test_the_old_flag_is_hidden_and_accepted(vlbench: Callable[..., Any], fake_run: Path, tiny_world: Path) -> None:
    assert "--cache-images" in vlbench("run", "--help").out and "cache-pictures" not in vlbench("run", "--help").out
    command = ["run", "--task", "nlvr2", "--model", "fake", "--steps", 1, "--controls", "none", "--quiet",
               "--data-root", tiny_world, "--output-path", fake_run.parents[2]]  # fmt: skip
    old, new = (vlbench(*command, flag, 1) for flag in ("--cache-pictures", "--cache-images"))
    assert old.code == new.code == 0 and old.run == new.run == fake_run
    assert NOTE in old.err and "deprecated" not in new.err


def test_yaml_and_set_read_the_old_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text("cache_pictures: 2\n")
    for config, settings in ((tmp_path / "run.yaml", []), (None, ["cache-pictures=2"])):
        (spec,) = make_specs(BASE, config, settings)
        assert spec.cache_images == 2
        assert capsys.readouterr().err == NOTE
    (tmp_path / "run.yaml").write_text("cache_pictures: null\n")  # as in the config.yaml of a run of vlbench 0.2
    assert make_specs(BASE, tmp_path / "run.yaml")[0].cache_images is None
    assert capsys.readouterr().err == ""


def test_old_records_are_read(tmp_path: Path) -> None:
    """A record of before: with the old name of an option, and without a seal."""
    values = json.loads(next(RECORDS.glob("*.json")).read_text(encoding="utf8"))
    del values["spec"]["cache_images"], values["seal"], values["files"]
    values["spec"]["cache_pictures"] = 2.5
    (tmp_path / "run.json").write_text(json.dumps(values), encoding="utf8")
    collected = collect([tmp_path])
    (run,) = collected.runs
    assert run.record.spec.cache_images == 2.5 and run.record.is_unsealed and not collected.faults
    spec = RunSpec.model_validate_json(json.dumps({**BASE, "cache_pictures": 1.5}))
    assert spec.cache_images == 1.5 and "cache_images" in spec.model_dump() and "cache_images" in PLACE
