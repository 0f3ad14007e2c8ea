"""What the reader of a profile's tables must know: how figures were made, and which are not to be quoted."""

from __future__ import annotations

from vlbench.core.profile import INTERVAL_FROM, ProfileRecord
from vlbench.report.tables.markup import markdown, rounded

_OFF = 0.05
"""Of the median whole, so far from which the sum of the stages' medians is told."""
_OVER = 1.1
"""Of the seconds allowed, from which it is told why there were more."""
_COMPUTED = {
    "dual": "in proportion to the largest index that fitted into memory and time",
    "two-stage": "a search and the pairs of its shortlist, timed apart",
    "cross-encoder": "from the cost of a pair",
}
"""By the way of searching."""


def footnote(record: ProfileRecord) -> str:
    """A sentence or more a line."""
    lines = [
        f"Medians with 95 % intervals, which take {INTERVAL_FROM} iterations; n: how many there were. visual: the "
        "detector, if any, and seeing; model: without decoding and preprocessing; whole: with them.",
        "Operations of one example, a multiplication with its addition being two, in products, convolutions and "
        "attention; of a batch of one.",
    ]
    lines += _of_latency(record)
    uncounted = dict.fromkeys(name for one in record.models if one.operations for name in one.operations.uncounted)
    if uncounted:
        lines.append(f"Without a formula, and not counted: {', '.join(sorted(uncounted))}.")
    computed = {query.how for one in record.models for query in one.retrieval if not query.measured}
    if computed:
        ways = "; ".join(f"{how}: {why}" for how, why in _COMPUTED.items() if how in computed)
        lines.append(f"~ computed, not measured. {ways}.")
    for one in record.models:
        if one.proposals and one.proposals[0] < one.proposals[1]:
            kept, most = one.proposals
            lines.append(
                f"{markdown(one.name)}: the detector kept {kept} proposals of {most}, and takes longer where it keeps "
                f"more."
            )
    if record.spec.energy and not any(rate.joules_per_example for one in record.models for rate in one.throughput):
        lines.append("No energy: it takes the scenario throughput, and an NVIDIA GPU whose driver tells.")
    stopped = [one.name for one in record.models if one.latency and one.latency.why_stopped != "precise"]
    if stopped:
        lines.append(
            f"{', '.join(map(markdown, stopped))}: out of time before the median was known to "
            f"{100 * record.spec.precision:g} %."
        )
    return "\n".join([*lines, *_few(record), *_one_size(record), *_spent(record)])


def _of_latency(record: ProfileRecord) -> list[str]:
    """How its figures hang together, and whose do not."""
    measured = [(one.name, one.latency) for one in record.models if one.latency]
    if not measured:
        return []
    lines = [
        "ms of the whole: each stage's share of all seconds, of the median whole, so that they add up to it, which "
        "medians of stages need not.",
        "Latency is of one example that is decoded and prepared right before the model runs, whose caches are cold "
        "then: a small model takes longer than a batch of one in throughput, whose inputs lie ready.",
    ]
    for name, latency in measured:
        sum_of, whole = sum(times.p50 for times in latency.stages.values()), latency.whole.p50
        if abs(sum_of - whole) > _OFF * whole:
            lines.append(
                f"{markdown(name)}: medians of stages add up to {rounded(sum_of)} ms, and the median whole is "
                f"{rounded(whole)} ms: its iterations differ too much to quote stages."
            )
    if record.ratios:
        lines.append("Ratios are medians over rounds in which both were measured, no quotients of the table's medians.")
    return lines


def _one_size(record: ProfileRecord) -> list[str]:
    """Models that do not have the size asked for, since they have one alone."""
    size = record.spec.size
    names = [markdown(one.name) for one in record.models if size and not one.error and one.size != size]
    return [f"{', '.join(names)}: of one size, whatever --size {markdown(size or '')} says."] if names else []


def _few(record: ProfileRecord) -> list[str]:
    """Ratios whose brackets are no intervals."""
    rounds = {one.name: one.latency.model.n for one in record.models if one.latency}
    pairs = [(ratio, min(rounds[ratio.of], rounds[ratio.to])) for ratio in record.ratios]
    few = [f"{markdown(ratio.of)} : {markdown(ratio.to)} (n {n})" for ratio, n in pairs if n < INTERVAL_FROM]
    return [f"Ratios with their range in brackets, no interval: {', '.join(few)}."] if few else []


def _spent(record: ProfileRecord) -> list[str]:
    """Seconds that it took, beside what it might."""
    if not record.spent:
        return []
    most, spent = record.spec.max_seconds, record.spent
    parts = [f"{what} {seconds:.1f} s" for what, seconds in spent.items()]
    over = max((spent.get(what, 0.0) for what in record.spec.scenario), default=0.0) > _OVER * most
    why = "; the least that was to be measured took longer" if over else ""
    return [f"Took: {', '.join(parts)}; --max-seconds {most:g} is for each scenario{why}."]
