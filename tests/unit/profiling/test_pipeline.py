"""A batch that a loader process prepares equals the batch that the stages prepare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from vlbench.core.profile import ProfileSpec
from vlbench.models.detector.config import Layout, Rules
from vlbench.profiling import pipeline as rates
from vlbench.profiling.build import build_model
from vlbench.profiling.inputs import make_texts, write_images
from vlbench.profiling.stages import ModelInputs, StagedModel
from vlbench.profiling.sweep import BatchCost
from vlbench.profiling.timing import Durations, run_once

CPU = torch.device("cpu")


def spec(name: str) -> ProfileSpec:
    return ProfileSpec(models=(name,), size="tiny", detector=False, picture=(96, 64), seconds=0.0)


@pytest.mark.parametrize("name", ["vilt", "cvlp", "brivl"])
def test_the_loader_prepares_what_the_stages_prepare(name: str, tmp_path: Path) -> None:
    inputs = ModelInputs(write_images(tmp_path / "p", (96, 64), 1, 0), make_texts(1, 12, 0))
    with torch.inference_mode():
        staged = build_model(name, spec(name), tmp_path, CPU).with_inputs(inputs, CPU)
        run_once(staged.stages(), CPU)
        alone = staged.stages()[-1].run()
        left = staged.use_inputs(staged.load_inputs())
        run_once(left, CPU)
        assert torch.equal(left[-1].run(), alone)  # type: ignore[call-overload]
        assert left[0].name == "see"


def test_a_detector_comes_after_the_loader(tiny_detector: ModuleType, tmp_path: Path) -> None:
    inputs = ModelInputs(write_images(tmp_path / "p", (96, 64), 1, 0), make_texts(1, 12, 0))
    network = tiny_detector.trained(
        Rules(short_side=64, long_side=96, proposals=40), Layout(width=64, blocks=(1, 1, 1, 1))
    )
    with torch.inference_mode():
        built = replace(build_model("cvlp", spec("cvlp"), tmp_path, CPU), network=network)
        staged = built.with_inputs(inputs, CPU)
        run_once(staged.stages(), CPU)
        alone = staged.stages()[-1].run()
        built.decoded.images.clear()
        built.detected.regions.clear()
        left = staged.use_inputs(staged.load_inputs())
        run_once(left, CPU)
    assert [stage.name for stage in left][:3] == ["preprocess", "detect backbone", "detect proposals"]
    assert torch.equal(left[-1].run(), alone)  # type: ignore[call-overload]


def test_loaders_in_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "spare_processes", lambda: 2)
    inputs = ModelInputs(write_images(tmp_path / "p", (96, 64), 1, 0), make_texts(1, 12, 0))
    with torch.inference_mode():
        built = build_model("vilt", spec("vilt"), tmp_path, CPU)
        found = rates.measure_pipeline(built, spec("vilt"), inputs, 4, BatchCost(1, 0.0, 0.0, 0.0), CPU, 1.0)
    assert (found.batch, found.workers, found.error) == (4, 2, "") and found.ms is not None
    assert found.examples_per_second == pytest.approx(4 * 1000 / found.ms.mean)


@pytest.mark.parametrize(("seconds", "batch", "says"), [(17.0, 8, ""), (8.5, 4, ""), (1.5, 1, "would take 2.0 s")])
def test_batches_as_large_as_there_is_time_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, batch: int, says: str
) -> None:
    """An example takes a second, and a size needs two batches: one that does not count and one that does."""
    monkeypatch.setattr(rates, "spare_processes", lambda: 0)
    taken: list[int] = []

    def measured(staged: StagedModel, *_: object) -> Durations:
        taken.append(len(staged.inputs.texts))
        return Durations(whole=[0.5, 1.5])

    monkeypatch.setattr(rates, "_measure_batches", measured)
    inputs = ModelInputs(write_images(tmp_path / "p", (96, 64), 1, 0), make_texts(1, 12, 0))
    built = build_model("vilt", spec("vilt"), tmp_path, CPU)
    found = rates.measure_pipeline(built, spec("vilt"), inputs, 8, BatchCost(2, 0.5, 0.5, 1.0), CPU, seconds)
    assert (found.batch, found.examples_per_second) == (batch, 0.0 if says else batch)
    assert taken == ([] if says else [batch]) and found.error.startswith(says)
