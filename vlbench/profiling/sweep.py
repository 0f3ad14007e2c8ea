"""Throughput: batches that grow until the fastest is found, or of the sizes that were asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from vlbench.core.errors import is_out_of_memory
from vlbench.core.profile import PIPELINE, ProfileSpec, Rate
from vlbench.profiling import machine
from vlbench.profiling.build import BuiltModel
from vlbench.profiling.stages import ModelInputs
from vlbench.profiling.stopping_rule import StoppingRule, summarize_times
from vlbench.profiling.timing import LONG, Durations, Stage, measure_one, run_once

_GAIN = 1.02
"""A doubled batch must be faster per example by this factor; otherwise throughput has levelled off."""
_DOUBLING = tuple(2**power for power in range(13))
"""The batch sizes that are tried, from 1 to 4096."""
_PARTS = 4
"""A size may take 1 / `_PARTS` of the time that is left, so that larger sizes can follow."""
_STEP = 8
"""The largest growth of a batch for which its cost is predicted in proportion; a GPU is faster than that prediction, so
larger growth goes in several steps."""


@dataclass(frozen=True)
class BatchCost:
    """The seconds of a batch: of decoding all its images, of preprocessing, and of the model."""

    batch: int
    decode: float
    preprocess: float
    model: float

    def scaled_to(self, size: int) -> BatchCost:
        """The predicted cost of another batch size, in proportion."""
        factor = size / self.batch
        return BatchCost(size, factor * self.decode, factor * self.preprocess, factor * self.model)

    @property
    def first_pass(self) -> float:
        """Seconds of the first pass in a sweep, which decodes each distinct image once."""
        return self.preprocess + self.model

    @property
    def least(self) -> float:
        """The least seconds to measure a size: the first pass, and another one unless the first is long enough."""
        return self.first_pass if self.model > LONG else self.first_pass + self.model


class ThroughputSweep:
    """Examples per second of a model alone, batch size by batch size.

    Without sizes in the spec they double from 1 until two in a row are hardly faster than the best before them. The
    sweep ends when memory or time does, and the last rate says so. cost: of the last batch that was tried.

    inputs: one example, which is repeated. first: seconds that one example took, roughly. max_seconds: for the whole
    sweep; a size that would end later is not tried. keep: called with the raw durations of each size.
    """

    def __init__(
        self,
        built: BuiltModel,
        spec: ProfileSpec,
        inputs: ModelInputs,
        device: torch.device,
        first: float,
        max_seconds: float,
        keep: Callable[[Durations, int], None] = lambda durations, size: None,
    ) -> None:
        self.built, self.spec, self.inputs, self.device = built, spec, inputs, device
        self.ends = time.perf_counter() + max_seconds
        self.cost, self.keep = BatchCost(1, 0.0, 0.0, first), keep

    def rates(self) -> Iterator[Rate]:
        """The rates, from the smallest batch to the largest."""
        best, flat, given = 0.0, 0, sorted(set(self.spec.batches))
        for number, size in enumerate(given or _DOUBLING):
            rate = self._try_size(size, parts=len(given) - number if given else _PARTS)
            yield rate
            if rate.error:
                return
            flat = 0 if rate.examples_per_second > _GAIN * best else flat + 1
            best = max(best, rate.examples_per_second)
            if flat == 2 and not given:
                return

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.ends - time.perf_counter()

    def _try_size(self, size: int, parts: int) -> Rate:
        """parts: the number of equal parts of the time left, of which this size may take one."""
        try:
            while (next_size := self.cost.batch * _STEP) < size:
                if self.cost.scaled_to(next_size).first_pass > self.left:
                    break
                self._prepare(next_size)
            least, left = self.cost.scaled_to(size).least, self.left
            if least > left:
                return Rate(batch=size, error=f"would take {least:.1f} s, and {max(left, 0.0):.1f} s are left")
            return self._measure(size, self._prepare(size), parts)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return Rate(batch=size, error="out of memory")

    def _prepare(self, size: int) -> list[Stage]:
        """Run all stages once, so that each has its inputs, and update `cost`; returns the model's own stages."""
        stages = self.built.with_inputs(repeat_inputs(self.inputs, size), self.device).stages()
        begun = time.perf_counter()
        self.built.decoded.decode(self.inputs.refs)
        decode = size * (time.perf_counter() - begun)
        seconds, whole = run_once([stage for stage in stages if stage.name != "decode"], self.device)
        preprocess = seconds.get("preprocess", 0.0)
        self.cost = BatchCost(size, decode, preprocess, max(whole - preprocess, 0.0))
        return [stage for stage in stages if stage.name not in PIPELINE]

    def _measure(self, size: int, stages: Sequence[Stage], parts: int) -> Rate:
        before = machine.energy_joules(self.device) if self.spec.energy else None
        rule = StoppingRule(self.spec.iterations, self.spec.seconds, self.spec.precision)
        share, first = self.left / parts, self.cost.model
        if first > max(LONG, share):
            self.keep(Durations(whole=[first], rounds=[0]), size)
            return Rate(batch=size, examples_per_second=size / first, ms=summarize_times([first]))
        durations = measure_one(stages, rule, share, self.device, warmup=0)
        self.keep(durations, size)
        after = machine.energy_joules(self.device) if before is not None else None
        examples = len(durations.whole) * size
        energy = (after - before) / examples if after is not None and before is not None else None
        ms = summarize_times(durations.whole)
        return Rate(batch=size, examples_per_second=1000 * size / ms.p50, ms=ms, joules_per_example=energy)


def repeat_inputs(inputs: ModelInputs, times: int) -> ModelInputs:
    """The inputs repeated `times` times."""
    return ModelInputs(inputs.refs * times, inputs.texts * times)


def fastest_rate(rates: Sequence[Rate]) -> Rate | None:
    """The best rate that was measured; None if there is none."""
    measured = [rate for rate in rates if not rate.error]
    return max(measured, key=lambda rate: rate.examples_per_second, default=None)
