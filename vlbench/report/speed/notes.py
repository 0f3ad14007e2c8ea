"""Footnotes of a profile's tables: how values were measured, and which ones not to quote."""

from __future__ import annotations

from vlbench.core.profile import INTERVAL_FROM, ProfileRecord
from vlbench.report.tables.markup import markdown, rounded

_OFF = 0.05
"""Fraction of the median of the whole by which the sum of stage medians may differ without a note."""
_OVER = 1.1
"""Multiple of the allowed seconds from which a note gives the reason."""
_COMPUTED = {
    "dual": "in proportion to the largest index that fitted into memory and time",
    "two-stage": "a search and the pairs of its shortlist, timed apart",
    "cross-encoder": "from the cost of a pair",
}
"""By the way of retrieval."""


def footnote(record: ProfileRecord) -> str:
    """The footnotes, one per line."""
    lines = [
        f"Medians with 95 % intervals, which need {INTERVAL_FROM} iterations; n: number of iterations. visual: the "
        "detector, if any, and the image encoder; model: without decoding and preprocessing; whole: with them.",
        "GFLOPs of one example (a multiply-add is two operations) in matrix products, convolutions and attention, "
        "with a batch of one.",
    ]
    lines += _of_latency(record)
    uncounted = {name for model in record.models if model.operations for name in model.operations.uncounted}
    if uncounted:
        lines.append(f"Not counted, since there is no formula: {', '.join(sorted(uncounted))}.")
    computed = {query.how for model in record.models for query in model.retrieval if not query.measured}
    if computed:
        ways = "; ".join(f"{how}: {why}" for how, why in _COMPUTED.items() if how in computed)
        lines.append(f"~ computed, not measured. {ways}.")
    for model in record.models:
        if model.proposals and model.proposals[0] < model.proposals[1]:
            kept, most = model.proposals
            lines.append(f"{markdown(model.name)}: the detector kept {kept} proposals of {most}; more take longer.")
    if record.spec.energy and not any(rate.joules_per_example for model in record.models for rate in model.throughput):
        lines.append("No energy: it needs the scenario throughput and an NVIDIA GPU whose driver reports it.")
    stopped = [model.name for model in record.models if model.latency and model.latency.why_stopped != "precise"]
    if stopped:
        late = f"out of time before the median had a precision of {100 * record.spec.precision:g} %"
        lines.append(f"{', '.join(map(markdown, stopped))}: {late}.")
    return "\n".join([*lines, *_few(record), *_one_size(record), *_spent(record)])


def _of_latency(record: ProfileRecord) -> list[str]:
    """How latencies relate to each other, and models with inconsistent stages."""
    measured = [(model.name, model.latency) for model in record.models if model.latency]
    if not measured:
        return []
    lines = [
        "ms of the whole: the median of the whole, split by each stage's share of the total time; unlike the medians "
        "of stages, these values add up to it.",
        "Latency is of one example that is decoded and preprocessed right before the model runs, so caches are cold: a "
        "small model takes longer than a batch of one in throughput, whose inputs are ready.",
    ]
    for name, latency in measured:
        sum_of, whole = sum(times.p50 for times in latency.stages.values()), latency.whole.p50
        if abs(sum_of - whole) > _OFF * whole:
            lines.append(
                f"{markdown(name)}: medians of stages add up to {rounded(sum_of)} ms, and the median of the whole "
                f"is {rounded(whole)} ms: its iterations differ too much to quote stages."
            )
    if record.ratios:
        lines.append(
            "Ratios are medians over rounds in which both were measured, not quotients of the table's medians."
        )
    return lines


def _one_size(record: ProfileRecord) -> list[str]:
    """Models with a single size, which --size does not change."""
    size = record.spec.size
    names = [markdown(model.name) for model in record.models if size and not model.error and model.size != size]
    return [f"{', '.join(names)}: only one size, so --size {markdown(size or '')} does not apply."] if names else []


def _few(record: ProfileRecord) -> list[str]:
    """Ratios with a range in brackets instead of an interval."""
    rounds = {model.name: model.latency.model.n for model in record.models if model.latency}
    pairs = [(ratio, min(rounds[ratio.of], rounds[ratio.to])) for ratio in record.ratios]
    few = [f"{markdown(ratio.of)} : {markdown(ratio.to)} (n {n})" for ratio, n in pairs if n < INTERVAL_FROM]
    return [f"Ratios with their range in brackets, not an interval: {', '.join(few)}."] if few else []


def _spent(record: ProfileRecord) -> list[str]:
    """Seconds spent, and the limit."""
    if not record.spent:
        return []
    most, spent = record.spec.max_seconds, record.spent
    parts = [f"{what} {seconds:.1f} s" for what, seconds in spent.items()]
    over = max((spent.get(what, 0.0) for what in record.spec.scenario), default=0.0) > _OVER * most
    why = "; the minimum number of measurements took longer" if over else ""
    return [f"Took: {', '.join(parts)}; --max-seconds {most:g} is for each scenario{why}."]
