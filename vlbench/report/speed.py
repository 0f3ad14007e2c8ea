"""Profiles for reading: a table like the papers', the stages, how many times one model takes what another does."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from vlbench.core.profile import INTERVAL_FROM, VISUAL, Latency, ModelProfile, ProfileRecord, Query, Times
from vlbench.report.speed_published import cost_table, ratio_lines
from vlbench.report.speed_text import interval, number
from vlbench.report.tables import cell

_EMBED = {"regions": "region", "grid": "grid", "patches": "patch", "none": "none"}
"""What the papers call it."""
_HEADERS = (
    "model", "visual embed", "tokens", "params M", "GFLOPs", "visual ms", "model ms", "n", "whole ms",
    "examples/s", "GiB",
)  # fmt: skip
_OVER = 1.1
"""Of the seconds allowed, from which it is told why there were more."""
_COMPUTED = {
    "dual": "in proportion to the largest index that fitted into memory",
    "two-stage": "a search and the pairs of its shortlist, timed apart",
    "cross-encoder": "from the cost of a pair",
}
"""By the way of searching, in the order of tables."""


def speed_table(record: ProfileRecord) -> str:
    """All of a profile that its reader must see."""
    parts = [_heading(record), model_table(record)]
    parts += [stage_table(record.models), ratio_lines(record), rate_table(record.models), _galleries(record.models)]
    parts += [start_table(record.models), cost_table(record)]
    errors = [f"{cell(one.name)}: {cell(one.error)}" for one in record.models if one.error]
    return "\n\n".join(part for part in (*parts, "\n".join(errors), _footnote(record)) if part)


def _heading(record: ProfileRecord) -> str:
    spec, where = record.spec, record.environment
    device = where.gpu or where.cpu
    width, height = spec.picture
    inputs = f"pictures of {width} x {height} pixels, texts of {spec.words} words"
    noisy = [f"NOISY, do not quote: {'; '.join(record.machine.reasons)}"] if record.machine.noisy else []
    only = [f"stages {cell(', '.join(spec.stages))} alone: totals and ratios are of these"] if spec.stages else []
    line = f"{cell(spec.task)} | {device}, {record.machine.threads} threads | {spec.dtype} | {inputs}"
    return "\n".join([line, *only, *noisy])


def model_table(record: ProfileRecord) -> str:
    """A row per model, as the papers have it."""
    rows = [_row(one, whole=not record.spec.stages) for one in record.models]
    return tabulate(rows, _HEADERS, "github", disable_numparse=True)


def _row(one: ModelProfile, whole: bool) -> list[str]:
    """whole: whether all stages were measured."""
    latency, operations, parameters = one.latency, one.operations, one.parameters
    best = max((rate.examples_per_second for rate in one.throughput), default=0.0)
    at = next((rate.batch for rate in one.throughput if rate.examples_per_second == best), 0)
    return [
        cell(one.name),
        _EMBED.get(one.visual, one.visual),
        f"{one.tokens[0]} + {one.tokens[1]}" if one.tokens else "-",
        number(parameters.total / 1e6 if parameters else None),
        number(operations.total / 1e9 if operations else None),
        number(visual_ms(latency) if latency else None),
        median(latency.model) if latency else "-",
        str(latency.model.n) if latency else "-",
        number(latency.whole.p50 if latency and whole else None),
        f"{number(best)} at {at}" if best else "-",
        number(one.memory.weights / 1024 + (one.memory.activations or 0.0) / 1024 if one.memory else None),
    ]


def visual_ms(latency: Latency) -> float | None:
    """Median milliseconds of what the papers call visual embedding: the detector, if any, and seeing; None where
    neither was measured."""
    seen = [times.p50 for name, times in latency.stages.items() if name in VISUAL]
    return sum(seen) if seen else None


def median(times: Times) -> str:
    """Milliseconds with their 95 % interval, or with their range where there are too few for one."""
    if times.n >= INTERVAL_FROM:
        return interval(times.p50, times.ci95)
    low, high = map(number, times.ci95)
    return (
        f"{number(times.p50)} (range of {times.n}: {low} to {high})" if times.n > 1 else f"{number(times.p50)} (of 1)"
    )


def stage_table(models: Sequence[ModelProfile]) -> str:
    """Milliseconds, operations and parameters of every stage, and what no stage accounts for."""
    rows = []
    for one in models:
        for name, times in one.latency.stages.items() if one.latency else ():
            flops = one.operations.stages.get(name, 0) / 1e9 if one.operations else None
            count = one.parameters.stages.get(name, 0) / 1e6 if one.parameters else None
            spread = (median(times), number(times.p95), number(times.stdev))
            rows.append([cell(one.name), name, *spread, number(flops), number(count)])
        if one.latency:
            rows.append([cell(one.name), "rest", f"{100 * one.latency.rest:.2f} % of the whole", *"----"])
    headers = ("model", "stage", "ms p50", "p95", "stdev", "GFLOPs", "params M")
    return tabulate(rows, headers, "github", disable_numparse=True) if rows else ""


def rate_table(models: Sequence[ModelProfile]) -> str:
    """Examples per second, batch by batch, and what ended the sweep."""
    rows = [
        [
            cell(one.name), str(rate.batch), number(rate.examples_per_second or None),
            median(rate.ms) if rate.ms else "-", number(rate.joules_per_example),
            cell(f"{rate.error}: stopped here" if rate.error else ""),
        ]
        for one in models
        for rate in one.throughput
    ]  # fmt: skip
    rows += [
        [
            cell(one.name), str(one.pipeline.batch), number(one.pipeline.examples_per_second or None),
            median(one.pipeline.ms) if one.pipeline.ms else "-", "-",
            f"from files to answers, {one.pipeline.workers} loader processes" + (
                f"; not measured: {cell(one.pipeline.error)}" if one.pipeline.error else ""
            ),
        ]
        for one in models
        if one.pipeline
    ]  # fmt: skip
    headers = ("model", "batch", "examples/s", "ms of a batch", "J/example", "note")
    return tabulate(rows, headers, "github", disable_numparse=True) if rows else ""


def start_table(models: Sequence[ModelProfile]) -> str:
    """What a model costs before its first answer, and what it holds."""
    rows = []
    for one in models:
        if one.memory is None:
            continue
        memory, warmup = one.memory, one.latency.warmup_ms if one.latency else ()
        embeddings = one.parameters.embeddings / 1e6 if one.parameters else None
        mib = (memory.weights, memory.activations, memory.reserved, memory.host)
        seconds = (one.load_seconds, one.first_batch_seconds, max(warmup) / 1000 if warmup else None)
        rows.append([cell(one.name), *map(number, seconds), *map(number, mib), number(embeddings)])
    headers = (
        "model", "load s", "first batch s", "warm-up s", "weights MiB", "activations", "reserved", "process",
        "word and position tables M",
    )  # fmt: skip
    return tabulate(rows, headers, "github", disable_numparse=True) if rows else ""


def _galleries(models: Sequence[ModelProfile]) -> str:
    """Milliseconds per query, models and ways of searching down, galleries across."""
    sizes = sorted({query.gallery for one in models for query in one.retrieval})
    rows = []
    for one in models:
        for how in _COMPUTED:
            costs = {query.gallery: query for query in one.retrieval if query.how == how}
            if costs:
                rows.append([cell(one.name), how, *(_cost(costs.get(size)) for size in sizes)])
    headers = ("model", "ms per query by", *(f"{size:,} pictures" for size in sizes))
    return tabulate(rows, headers, "github", disable_numparse=True) if rows else ""


def _cost(query: Query | None) -> str:
    if query is None:
        return "-"
    return number(query.ms) if query.measured else f"~{number(query.ms)}"


def _footnote(record: ProfileRecord) -> str:
    lines = [
        f"Medians with 95 % intervals, which take {INTERVAL_FROM} iterations; n: how many there were. visual: the "
        "detector, if any, and seeing; model: without decoding and preprocessing; whole: with them.",
        "Operations of one example, a multiplication with its addition being two, in products, convolutions and "
        "attention; of a batch of one.",
    ]
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
                f"{cell(one.name)}: the detector kept {kept} proposals of {most}, and takes longer where it keeps more."
            )
    if record.spec.energy and not any(rate.joules_per_example for one in record.models for rate in one.throughput):
        lines.append("No energy: it takes the scenario throughput, and an NVIDIA GPU whose driver tells.")
    stopped = [one.name for one in record.models if one.latency and one.latency.why_stopped != "precise"]
    if stopped:
        lines.append(
            f"{', '.join(map(cell, stopped))}: out of time before the median was known to "
            f"{100 * record.spec.precision:g} %."
        )
    return "\n".join([*lines, *_few(record), *_spent(record)])


def _few(record: ProfileRecord) -> list[str]:
    """Ratios whose brackets are no intervals."""
    rounds = {one.name: one.latency.model.n for one in record.models if one.latency}
    pairs = [(ratio, min(rounds[ratio.of], rounds[ratio.to])) for ratio in record.ratios]
    few = [f"{cell(ratio.of)} : {cell(ratio.to)} (n {n})" for ratio, n in pairs if n < INTERVAL_FROM]
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
