"""`--log-with`, read back from what the trackers wrote; a run that goes on goes on with its tracker run."""

from __future__ import annotations

import json
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from vlbench.records.folder import RunFolder, read_run

Call = Callable[..., Any]
SHORT = ("--steps", 6, "--batch-size", 8, "--set", "train.evaluations=2", "--controls", "none", "--quiet")


@pytest.fixture
def arguments(tiny_world: Path, tmp_path: Path) -> list[object]:
    return ["run", "--task", "nlvr2", "--model", "fake", "--data-root", tiny_world, "--output-path", tmp_path, *SHORT]


def stopped_and_gone_on_with(vlbench: Call, arguments: list[object], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Interrupted at the fourth of six steps, then done."""
    append = RunFolder.append_metrics
    with monkeypatch.context() as patch:

        def once(self: RunFolder, values: dict[str, object]) -> None:
            append(self, values)  # type: ignore[arg-type]
            if values["step"] == 4:
                signal.raise_signal(signal.SIGINT)

        patch.setattr(RunFolder, "append_metrics", once)
        assert vlbench(*arguments).code == 130
    done = vlbench(*arguments)
    assert done.code == 0, done.err
    return Path(done.run)


def journal(run: Path) -> dict[int, float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def test_tensorboard(vlbench: Call, arguments: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    if not find_spec("tensorboard"):
        pytest.skip("tensorboard is not installed (pip install 'vlbench[track]')")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = stopped_and_gone_on_with(vlbench, [*arguments, "--log-with", "tensorboard"], monkeypatch)
    folder = run / "trackers" / "tensorboard"
    seen = EventAccumulator(str(folder))
    seen.Reload()
    losses = {event.step: event.value for event in seen.Scalars("train/loss")}
    assert [event.step for event in seen.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert losses == pytest.approx(journal(run))
    assert [event.step for event in seen.Scalars("selection/plain")] == [3, 6]
    record = read_run(run)
    (accuracy,) = seen.Scalars("results/accuracy")
    assert accuracy.value == pytest.approx(record.results[0].value)
    (values,) = folder.glob("*/hparams.yml")  # once, though the run began twice
    assert "train.steps: 6" in values.read_text()


def test_wandb_offline(vlbench: Call, arguments: list[object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not find_spec("wandb"):
        pytest.skip("wandb is not installed (pip install 'vlbench[track]')")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = stopped_and_gone_on_with(vlbench, [*arguments, "--log-with", "wandb"], monkeypatch)
    written = sorted((run / "trackers" / "wandb").glob("offline-run-*/*.wandb"))
    known = (run / "trackers" / "wandb.id").read_text().strip()
    assert [path.name for path in written] == [f"run-{known}.wandb"] * 2  # what `wandb sync` puts together
    losses = {step: loss for path in written for step, loss in _wandb_losses(path)}
    assert losses == pytest.approx(journal(run))


def _wandb_losses(path: Path) -> Iterator[tuple[int, float]]:
    from wandb.proto import wandb_internal_pb2

    for content in _blocks(path.read_bytes()[7:]):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        values = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
        if "train/loss" in values:
            yield int(values["_step"]), float(values["train/loss"])


def _blocks(content: bytes, size: int = 32_768) -> Iterator[bytes]:
    """The records of a log in LevelDB's format, behind the header of seven bytes that counts for its first block."""
    place, part = 0, b""
    while place + 7 <= len(content):
        left = size - (place + 7) % size
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        part += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield part
            part = b""


def test_a_tracker_that_is_not_there_is_said_before_anything_is_loaded(
    vlbench: Call, arguments: list[object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "wandb" else find_spec(name))
    for verb in (arguments, ["pretrain", "--model", "cvlp", "--output-path", tmp_path, "--quiet"]):
        done = vlbench(*verb, "--log-with", "wandb")
        assert (done.code, done.out) == (2, "")
        assert (
            done.err
            == "vlbench: --log-with wandb needs a package that is not installed: pip install 'vlbench[track]'\n"
        )
    assert list(tmp_path.iterdir()) == []


def test_the_same_run_with_and_without(vlbench: Call, arguments: list[object]) -> None:
    """Who is told is no part of what was done: the finished run is found again."""
    first = vlbench(*arguments).run
    if not find_spec("tensorboard"):
        pytest.skip("tensorboard is not installed (pip install 'vlbench[track]')")
    assert vlbench(*arguments, "--log-with", "tensorboard").run == first
    assert not (first / "trackers").exists()
