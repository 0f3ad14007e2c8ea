"""A batch that a loader's process has made is the batch that the stages make."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from vlbench.core.profile import ProfileSpec
from vlbench.models.detector.config import Layout, Rules
from vlbench.profiling import pipeline as rates
from vlbench.profiling.build import open_model
from vlbench.profiling.inputs import sentences, write_pictures
from vlbench.profiling.stages import Batch, SeeReadFuse
from vlbench.profiling.sweep import Cost
from vlbench.profiling.timing import Durations, once

CPU = torch.device("cpu")


def spec(name: str) -> ProfileSpec:
    return ProfileSpec(models=(name,), size="tiny", detector=False, picture=(96, 64), seconds=0.0)


@pytest.mark.parametrize("name", ["vilt", "cvlp", "brivl"])
def test_what_was_loaded_is_what_the_stages_load(name: str, tmp_path: Path) -> None:
    batch = Batch(write_pictures(tmp_path / "p", (96, 64), 1, 0), sentences(1, 12, 0))
    with torch.inference_mode():
        subject = open_model(name, spec(name), tmp_path, CPU).subject(batch, CPU)
        once(subject.stages(), CPU)
        alone = subject.stages()[-1].run()
        left = subject.take(subject.load())
        once(left, CPU)
        assert torch.equal(left[-1].run(), alone)  # type: ignore[call-overload]
        assert left[0].name == "see"


def test_a_detector_comes_after_the_loader(tiny_detector: ModuleType, tmp_path: Path) -> None:
    batch = Batch(write_pictures(tmp_path / "p", (96, 64), 1, 0), sentences(1, 12, 0))
    network = tiny_detector.trained(
        Rules(short_side=64, long_side=96, proposals=40), Layout(width=64, blocks=(1, 1, 1, 1))
    )
    with torch.inference_mode():
        opened = replace(open_model("cvlp", spec("cvlp"), tmp_path, CPU), network=network)
        subject = opened.subject(batch, CPU)
        once(subject.stages(), CPU)
        alone = subject.stages()[-1].run()
        opened.decoded.pictures.clear()
        opened.detected.regions.clear()
        left = subject.take(subject.load())
        once(left, CPU)
    assert [stage.name for stage in left][:3] == ["preprocess", "detect backbone", "detect proposals"]
    assert torch.equal(left[-1].run(), alone)  # type: ignore[call-overload]


def test_loaders_in_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "spare_processes", lambda: 2)
    batch = Batch(write_pictures(tmp_path / "p", (96, 64), 1, 0), sentences(1, 12, 0))
    with torch.inference_mode():
        opened = open_model("vilt", spec("vilt"), tmp_path, CPU)
        found = rates.pipeline(opened, spec("vilt"), batch, 4, Cost(1, 0.0, 0.0, 0.0), CPU, 1.0)
    assert (found.batch, found.workers, found.error) == (4, 2, "") and found.ms is not None
    assert found.examples_per_second == pytest.approx(4 * 1000 / found.ms.mean)


@pytest.mark.parametrize(("seconds", "batch", "says"), [(17.0, 8, ""), (8.5, 4, ""), (1.5, 1, "would take 2.0 s")])
def test_batches_as_large_as_there_is_time_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, batch: int, says: str
) -> None:
    """Of an example that takes a second, so that a batch that does not count and one that does take two of its size."""
    monkeypatch.setattr(rates, "spare_processes", lambda: 0)
    taken: list[int] = []

    def measured(subject: SeeReadFuse, *_: object) -> Durations:
        taken.append(len(subject.batch.texts))
        return Durations(whole=[0.5, 1.5])

    monkeypatch.setattr(rates, "_measured", measured)
    one = Batch(write_pictures(tmp_path / "p", (96, 64), 1, 0), sentences(1, 12, 0))
    opened = open_model("vilt", spec("vilt"), tmp_path, CPU)
    found = rates.pipeline(opened, spec("vilt"), one, 8, Cost(2, 0.5, 0.5, 1.0), CPU, seconds)
    assert (found.batch, found.examples_per_second) == (batch, 0.0 if says else batch)
    assert taken == ([] if says else [batch]) and found.error.startswith(says)
