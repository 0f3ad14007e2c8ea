"""Which batch sizes are tried within the time limit, for a model of known cost."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vlbench.core.profile import ProfileSpec, Rate
from vlbench.profiling import sweep as rates
from vlbench.profiling.build import BuiltModel, build_model
from vlbench.profiling.inputs import DecodedImages, make_texts, write_images
from vlbench.profiling.stages import ModelInputs
from vlbench.profiling.sweep import ThroughputSweep
from vlbench.profiling.timing import Stage

CPU = torch.device("cpu")
SPEC = ProfileSpec(models=("vilt",), size="tiny", detector=False, picture=(96, 64), seconds=0.0)


class Timed:
    """A batch whose preprocessing and model take a fixed time per example, on a fake clock."""

    def __init__(self, size: int, clock: list[float], each: tuple[float, float]) -> None:
        self.size, self.clock, self.each = size, clock, each

    def stages(self) -> list[Stage]:
        return [Stage("decode", self._fail), Stage("preprocess", lambda: self._take(0)), Stage("see", self._see)]

    def _fail(self) -> None:
        raise AssertionError("images are decoded outside the stages, each once")

    def _see(self) -> None:
        self._take(1)

    def _take(self, part: int) -> None:
        self.clock[0] += self.size * self.each[part]


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Sweep over sizes within a time limit, with a model of known cost: rates, seconds used, images decoded."""
    built = build_model("vilt", SPEC, tmp_path, CPU)
    inputs = ModelInputs(write_images(tmp_path / "p", (96, 64), 1, 0), make_texts(1, 12, 0))
    clock, decoded = [0.0], list[int]()

    class Counting(DecodedImages):
        def decode(self, refs: object) -> None:
            decoded.append(len(refs))  # type: ignore[arg-type]

    def run(
        sizes: tuple[int, ...], seconds: float, each: tuple[float, float], first: float = 0.0
    ) -> tuple[list[Rate], float, list[int]]:
        monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
        monkeypatch.setattr(
            BuiltModel, "with_inputs", lambda self, inputs, device: Timed(len(inputs.texts), clock, each)
        )
        spec = SPEC.model_copy(update={"batches": sizes})
        rates_of = ThroughputSweep(replace(built, decoded=Counting()), spec, inputs, CPU, first, seconds).rates()
        return list(rates_of), clock[0], decoded

    return run


def test_a_size_that_would_take_too_long_is_not_tried(swept: object) -> None:
    found, used, decoded = swept((4096, 8192), 2.0, (0.001, 0.002), 0.003)  # type: ignore[operator]
    (skipped,) = found
    assert skipped.batch == 4096 and skipped.ms is None
    # Sizes 8, 64 and 512 were run before it; the time left is 2 - 584 * 0.003 s.
    assert used == pytest.approx((8 + 64 + 512) * 0.003)
    assert decoded == [1, 1, 1]
    assert skipped.error == "would take 12.3 s, and 0.2 s are left"  # 4096 * 0.003; its first pass would count


def test_nothing_is_tried_where_one_example_takes_too_long(swept: object) -> None:
    found, used, _ = swept((), 5.0, (0.0, 9.0), 9.0)  # type: ignore[operator]
    assert [(rate.batch, rate.error) for rate in found] == [(1, "would take 9.0 s, and 5.0 s are left")] and used == 0.0


@pytest.mark.parametrize("seconds", [3.0, 10.0, 40.0, 100.0])
def test_it_ends_in_time_and_smaller_sizes_come_first(swept: object, seconds: float) -> None:
    found, used, _ = swept((64, 1, 8), seconds, (0.05, 0.1), 0.15)  # type: ignore[operator]
    assert used <= seconds
    assert [rate.batch for rate in found] == [1, 8, 64][: len(found)] and not found[0].error
    assert all(rate.examples_per_second == pytest.approx(10.0) for rate in found if not rate.error)
    assert bool(found[-1].error) == (seconds < 20.0)


@pytest.mark.parametrize(("seconds", "passes"), [(7.0, 1), (9.0, 2), (13.0, 3)])
def test_a_first_pass_that_takes_long_counts_where_there_is_no_time_for_another(
    swept: object, seconds: float, passes: int
) -> None:
    (rate,), used, _ = swept((2,), seconds, (0.0, 2.0))  # type: ignore[operator]
    assert (rate.ms.n, rate.examples_per_second) == (max(passes - 1, 1), pytest.approx(0.5))
    assert used == pytest.approx(4.0 * passes)


def test_as_many_iterations_as_asked_for(swept: object) -> None:
    (rate,), *_ = swept((1,), 100.0, (0.0, 0.01))  # type: ignore[operator]
    assert rate.ms.n == SPEC.iterations == 10


def test_the_fastest() -> None:
    found = [Rate(batch=1, examples_per_second=3.0), Rate(batch=2, examples_per_second=5.0), Rate(batch=4, error="out")]
    assert rates.fastest_rate(found) == found[1] and rates.fastest_rate(found[2:]) is None
