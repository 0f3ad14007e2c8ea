"""Throughput: growing batches to the fastest, or those that were asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from vlbench.core.errors import is_out_of_memory
from vlbench.core.profile import PIPELINE, ProfileSpec, Rate
from vlbench.profiling import machine
from vlbench.profiling.build import Opened
from vlbench.profiling.stages import Batch
from vlbench.profiling.stopping_rule import Rule, times
from vlbench.profiling.timing import LONG, Durations, Stage, measure_one, once

_GAIN = 1.02
"""A batch twice as large must be so much faster per example, or the sweep has seen the best."""
_LARGEST = 4096
_PARTS = 4
"""One size may take so large a part of the time that is left, so that others come after it."""
_STEP = 8
"""From one batch to another so many times as large, what it costs is told in proportion; a GPU does better than that,
so larger steps are led up to."""


@dataclass(frozen=True)
class Cost:
    """Seconds that a batch takes: decoding each of its pictures, preprocessing, and the model."""

    batch: int
    decode: float
    preprocess: float
    model: float

    def of(self, size: int) -> Cost:
        """In proportion."""
        times = size / self.batch
        return Cost(size, times * self.decode, times * self.preprocess, times * self.model)

    @property
    def prepared(self) -> float:
        """Of the first pass of the sweep, which decodes each picture once."""
        return self.preprocess + self.model

    @property
    def least(self) -> float:
        """Of the least that a size can be measured with: that pass, and one that counts unless the first can."""
        return self.prepared if self.model > LONG else self.prepared + self.model


class Sweep:
    """Examples per second of a model alone, batch size by batch size.

    Without sizes in the spec they double from 1 until two in a row are hardly faster than the best before them. It ends
    when memory or time does, which the last rate then says. cost: of the last batch that was tried.

    Args:
        batch: of one example, which is repeated.
        first: seconds that one example took before, about.
        max_seconds: a size that would take it longer is not tried.
        keep: given the raw values of each size.
    """

    def __init__(
        self,
        opened: Opened,
        spec: ProfileSpec,
        batch: Batch,
        device: torch.device,
        first: float,
        max_seconds: float,
        keep: Callable[[Durations, int], None] = lambda durations, size: None,
    ) -> None:
        self.opened, self.spec, self.batch, self.device = opened, spec, batch, device
        self.ends = time.perf_counter() + max_seconds
        self.cost, self.keep = Cost(1, 0.0, 0.0, first), keep

    def rates(self) -> Iterator[Rate]:
        """One after the other, the smallest first."""
        best, flat, given = 0.0, 0, sorted(set(self.spec.batches))
        for number, size in enumerate(given or _doubling()):
            rate = self._rate(size, parts=len(given) - number if given else _PARTS)
            yield rate
            if rate.error:
                return
            flat = 0 if rate.examples_per_second > _GAIN * best else flat + 1
            best = max(best, rate.examples_per_second)
            if flat == 2 and not given:
                return

    @property
    def left(self) -> float:
        """Seconds."""
        return self.ends - time.perf_counter()

    def _rate(self, size: int, parts: int) -> Rate:
        """parts: in which the time that is left is shared."""
        try:
            while self.cost.batch * _STEP < size and self.cost.of(self.cost.batch * _STEP).prepared <= self.left:
                self._prepare(self.cost.batch * _STEP)
            least, left = self.cost.of(size).least, self.left
            if least > left:
                return Rate(batch=size, error=f"would take {least:.1f} s, and {max(left, 0.0):.1f} s are left")
            return self._measured(size, self._prepare(size), parts)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return Rate(batch=size, error="out of memory")

    def _prepare(self, size: int) -> list[Stage]:
        """Run everything once, so that each stage has its inputs; returns those of the model."""
        stages = self.opened.subject(repeated(self.batch, size), self.device).stages()
        begun = time.perf_counter()
        self.opened.decoded.decode(self.batch.refs)
        decode = size * (time.perf_counter() - begun)
        seconds, whole = once([stage for stage in stages if stage.name != "decode"], self.device)
        preprocess = seconds.get("preprocess", 0.0)
        self.cost = Cost(size, decode, preprocess, max(whole - preprocess, 0.0))
        return [stage for stage in stages if stage.name not in PIPELINE]

    def _measured(self, size: int, stages: Sequence[Stage], parts: int) -> Rate:
        used = machine.joules(self.device) if self.spec.energy else None
        rule = Rule(self.spec.iterations, self.spec.seconds, self.spec.precision)
        share, first = self.left / parts, self.cost.model
        if first > max(LONG, share):
            self.keep(Durations(whole=[first], rounds=[0]), size)
            return Rate(batch=size, examples_per_second=size / first, ms=times([first]))
        found = measure_one(stages, rule, share, self.device, warmup=0)
        self.keep(found, size)
        after = machine.joules(self.device) if used is not None else None
        energy = (after - used) / (len(found.whole) * size) if after is not None and used is not None else None
        ms = times(found.whole)
        return Rate(batch=size, examples_per_second=1000 * size / ms.p50, ms=ms, joules_per_example=energy)


def _doubling() -> Iterator[int]:
    size = 1
    while size <= _LARGEST:
        yield size
        size *= 2


def repeated(batch: Batch, size: int) -> Batch:
    """The batch so many times over."""
    return Batch(batch.refs * size, batch.texts * size)


def fastest(rates: Sequence[Rate]) -> Rate | None:
    """The best of those that were measured."""
    measured = [rate for rate in rates if not rate.error]
    return max(measured, key=lambda rate: rate.examples_per_second, default=None)
