"""Latency at batch size one: of each model, and the ratios between models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import median

from vlbench.core.profile import PIPELINE, Latency, Ratio
from vlbench.profiling.stopping_rule import median_interval, summarize_times
from vlbench.profiling.timing import Durations


def summarize_latency(durations: Durations, stages: Sequence[str] = ()) -> Latency:
    """The latency of one model; stages: the only stages that were measured, empty for all."""
    whole, accounted = sum(durations.whole), sum(map(sum, durations.stages.values()))
    return Latency(
        stages={name: summarize_times(seconds) for name, seconds in durations.stages.items()},
        model=summarize_times(model_seconds(durations, stages)),
        whole=summarize_times(durations.whole),
        rest=(whole - accounted) / whole,
        why_stopped=durations.why_stopped,
        warmup_ms=tuple(1000 * seconds for seconds in durations.warmup),
    )


def model_seconds(durations: Durations, stages: Sequence[str] = ()) -> list[float]:
    """Seconds per iteration of the named stages, or without names of the model's own stages (no preprocessing)."""
    return durations.sum_stages(stages or [name for name in durations.stages if name not in PIPELINE])


def latency_ratios(durations: Mapping[str, Durations], stages: Sequence[str] = ()) -> tuple[Ratio, ...]:
    """The slower over the faster, for every pair of models, over the rounds in which both were measured."""
    ratios = []
    for first, second in combinations(durations, 2):
        pairs = _pair_rounds(durations[first], durations[second], stages)
        logs = [math.log(one / other) for one, other in pairs]
        if len(logs) < 2:
            continue
        middle = median(logs)
        slower, faster = (first, second) if middle >= 0 else (second, first)
        low, high = median_interval([abs(middle) / middle * log if middle else log for log in logs])
        interval = (math.exp(low), math.exp(high))
        ratios.append(Ratio(of=slower, to=faster, value=math.exp(abs(middle)), ci95=interval))
    return tuple(ratios)


def _pair_rounds(first: Durations, second: Durations, stages: Sequence[str]) -> list[tuple[float, float]]:
    """The seconds of both models in each round that both have, where they were measured one after the other."""
    others = dict(zip(second.rounds, model_seconds(second, stages), strict=True))
    own = zip(first.rounds, model_seconds(first, stages), strict=True)
    return [(seconds, others[number]) for number, seconds in own if number in others]
