"""Profiles for reading: a table like the papers', the stages, how many times one model takes what another does."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from vlbench.core.profile import VISUAL, Latency, ModelProfile, ProfileRecord, Query
from vlbench.report.tables import cell

_EMBED = {"regions": "region", "grid": "grid", "patches": "patch", "none": "none"}
"""What the papers call it."""
_HEADERS = (
    "model", "visual embed", "tokens", "params M", "GFLOPs", "visual ms", "model ms", "whole ms", "examples/s", "GiB",
)  # fmt: skip
_RETRIEVAL = ("dual", "two-stage", "cross-encoder")


def speed_table(record: ProfileRecord) -> str:
    """All of a profile that its reader must see."""
    parts = [_heading(record), tabulate(map(_row, record.models), _HEADERS, "github", disable_numparse=True)]
    parts += [_stages(record.models), _ratios(record), _galleries(record.models)]
    errors = [f"{cell(one.name)}: {cell(one.error)}" for one in record.models if one.error]
    return "\n\n".join(part for part in (*parts, "\n".join(errors), _footnote(record)) if part)


def _heading(record: ProfileRecord) -> str:
    spec, where = record.spec, record.environment
    device = where.gpu or where.cpu
    width, height = spec.picture
    inputs = f"pictures of {width} x {height} pixels, texts of {spec.words} words"
    noisy = [f"NOISY, do not quote: {'; '.join(record.machine.reasons)}"] if record.machine.noisy else []
    line = f"{cell(spec.task)} | {device}, {record.machine.threads} threads | {spec.dtype} | {inputs}"
    return "\n".join([line, *noisy])


def _row(one: ModelProfile) -> list[str]:
    latency, operations, parameters = one.latency, one.operations, one.parameters
    best = max((rate.examples_per_second for rate in one.throughput), default=0.0)
    at = next((rate.batch for rate in one.throughput if rate.examples_per_second == best), 0)
    return [
        cell(one.name),
        _EMBED.get(one.visual, one.visual),
        f"{one.tokens[0]} + {one.tokens[1]}" if one.tokens else "-",
        _number(parameters.total / 1e6 if parameters else None),
        _number(operations.total / 1e9 if operations else None),
        _number(visual_ms(latency) if latency else None),
        _interval(latency.model.p50, latency.model.ci95) if latency else "-",
        _number(latency.whole.p50 if latency else None),
        f"{_number(best)} at {at}" if best else "-",
        _number(one.memory.weights / 1024 + (one.memory.activations or 0.0) / 1024 if one.memory else None),
    ]


def visual_ms(latency: Latency) -> float:
    """Median milliseconds of what the papers call visual embedding: the detector, if any, and seeing."""
    return sum(times.p50 for name, times in latency.stages.items() if name in VISUAL)


def _stages(models: Sequence[ModelProfile]) -> str:
    """Milliseconds, operations and parameters of every stage."""
    rows = []
    for one in models:
        for name, times in one.latency.stages.items() if one.latency else ():
            flops = one.operations.stages.get(name, 0) / 1e9 if one.operations else None
            count = one.parameters.stages.get(name, 0) / 1e6 if one.parameters else None
            spread = (_interval(times.p50, times.ci95), _number(times.p95), _number(times.stdev))
            rows.append([cell(one.name), name, *spread, _number(flops), _number(count)])
    headers = ("model", "stage", "ms p50", "p95", "stdev", "GFLOPs", "params M")
    return tabulate(rows, headers, "github", disable_numparse=True) if rows else ""


def _ratios(record: ProfileRecord) -> str:
    return "\n".join(
        f"{cell(ratio.of)} takes {_interval(ratio.value, ratio.ci95)} times as long as {cell(ratio.to)}"
        for ratio in record.ratios
    )


def _galleries(models: Sequence[ModelProfile]) -> str:
    """Milliseconds per query, models and ways of searching down, galleries across."""
    sizes = sorted({query.gallery for one in models for query in one.retrieval})
    rows = []
    for one in models:
        for how in _RETRIEVAL:
            costs = {query.gallery: query for query in one.retrieval if query.how == how}
            if costs:
                rows.append([cell(one.name), how, *(_cost(costs.get(size)) for size in sizes)])
    headers = ("model", "ms per query by", *(f"{size:,} pictures" for size in sizes))
    return tabulate(rows, headers, "github", disable_numparse=True) if rows else ""


def _cost(query: Query | None) -> str:
    if query is None:
        return "-"
    return _number(query.ms) if query.measured else f"~{_number(query.ms)}"


def _footnote(record: ProfileRecord) -> str:
    lines = [
        "Medians with 95 % intervals. visual: the detector, if any, and seeing; model: without decoding and "
        "preprocessing; whole: with them.",
        "Operations of one example, a multiplication with its addition being two, in products, convolutions and "
        "attention.",
    ]
    if any(not query.measured for one in record.models for query in one.retrieval):
        lines.append("~ computed from the cost of a pair, not measured.")
    stopped = [one.name for one in record.models if one.latency and one.latency.why_stopped != "precise"]
    if stopped:
        lines.append(
            f"{', '.join(map(cell, stopped))}: out of time before the median was known to "
            f"{100 * record.spec.precision:g} %."
        )
    return "\n".join(lines)


def _interval(value: float, ci95: tuple[float, float]) -> str:
    return f"{_number(value)} [{_number(ci95[0])}, {_number(ci95[1])}]"


def _number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "-"
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
