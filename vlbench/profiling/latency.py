"""One example at a time: what each model takes, and how many times what another does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import median

from vlbench.core.profile import PIPELINE, Latency, Ratio
from vlbench.profiling.stopping_rule import median_interval, times
from vlbench.profiling.timing import Durations


def latency(durations: Durations, stages: Sequence[str] = ()) -> Latency:
    """One model's; stages: the only ones that were measured, empty where all were."""
    whole, accounted = sum(durations.whole), sum(map(sum, durations.stages.values()))
    return Latency(
        stages={name: times(seconds) for name, seconds in durations.stages.items()},
        model=times(of_model(durations, stages)),
        whole=times(durations.whole),
        rest=(whole - accounted) / whole,
        why_stopped=durations.why,
        warmup_ms=tuple(1000 * seconds for seconds in durations.warmup),
    )


def of_model(durations: Durations, stages: Sequence[str] = ()) -> list[float]:
    """Seconds of the model's own stages together, or of those that were asked for, per iteration."""
    return durations.of(stages or [name for name in durations.stages if name not in PIPELINE])


def ratios(durations: Mapping[str, Durations], stages: Sequence[str] = ()) -> tuple[Ratio, ...]:
    """Of every pair of models, the slower over the faster: over the rounds in which both were measured."""
    found = []
    for one, other in combinations(durations, 2):
        logs = [math.log(first / second) for first, second in _paired(durations[one], durations[other], stages)]
        if len(logs) < 2:
            continue
        middle = median(logs)
        of, to = (one, other) if middle >= 0 else (other, one)
        low, high = median_interval([abs(middle) / middle * log if middle else log for log in logs])
        found.append(Ratio(of=of, to=to, value=math.exp(abs(middle)), ci95=(math.exp(low), math.exp(high))))
    return tuple(found)


def _paired(one: Durations, other: Durations, stages: Sequence[str]) -> list[tuple[float, float]]:
    """Both in the same round, where they were measured one after the other."""
    second = dict(zip(other.rounds, of_model(other, stages), strict=True))
    first = zip(one.rounds, of_model(one, stages), strict=True)
    return [(seconds, second[number]) for number, seconds in first if number in second]
