"""Profiles for reading: a table like the papers', the stages, how many times one model takes what another does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tabulate import tabulate

from vlbench.core.profile import (
    INTERVAL_FROM,
    REST,
    UNOWNED,
    VISUAL,
    WAYS,
    GalleryQuery,
    Latency,
    Memory,
    ModelProfile,
    ProfileRecord,
    Times,
)
from vlbench.report.speed.notes import footnote
from vlbench.report.speed.published import cost_table, is_uncharged, ratio_lines
from vlbench.report.speed.text import interval, number
from vlbench.report.tables.markup import markdown

_EMBED = {"regions": "region", "grid": "grid", "patches": "patch", "none": "none"}
"""What the papers call it."""
_HEADERS = (
    "model", "visual embed", "tokens", "params M", "GFLOPs", "visual ms", "model ms", "n", "whole ms",
    "examples/s", "GiB",
)  # fmt: skip
_TAIL_FROM = 20
"""Values, of which one in twenty lies above their 95th percentile."""


def speed_table(record: ProfileRecord) -> str:
    """All of a profile that its reader must see."""
    parts = [_heading(record), model_table(record)]
    parts += [stage_table(record.models), ratio_lines(record), rate_table(record.models), _galleries(record.models)]
    parts += [start_table(record.models), cost_table(record)]
    errors = [f"{markdown(one.name)}: {markdown(one.error)}" for one in record.models if one.error]
    return "\n\n".join(part for part in (*parts, "\n".join(errors), footnote(record)) if part)


def _heading(record: ProfileRecord) -> str:
    spec, where = record.spec, record.environment
    device = where.gpu or where.cpu
    width, height = spec.picture
    inputs = f"pictures of {width} x {height} pixels, texts of {spec.words} words"
    noisy = [f"NOISY, do not quote: {'; '.join(record.machine.reasons)}"] if record.machine.noisy else []
    only = [
        f"stages {markdown(', '.join(spec.stages))} alone: latency and ratios are of these, all else of whole models"
    ]
    line = f"{markdown(spec.task)} | {device}, {record.machine.threads} threads | {spec.dtype} | {inputs}"
    without = any(map(partial(is_uncharged, record), record.models))
    free = ["--no-detector: models that look at regions are not charged for making them"] if without else []
    return "\n".join([line, *(only if spec.stages else []), *free, *noisy])


def model_table(record: ProfileRecord) -> str:
    """A row per model, as the papers have it."""
    rows = [_row(record, one) for one in record.models]
    return tabulate(rows, _HEADERS, "github", disable_numparse=True)


def _row(record: ProfileRecord, one: ModelProfile) -> list[str]:
    latency, operations, parameters = one.latency, one.operations, one.parameters
    best = max((rate.examples_per_second for rate in one.throughput), default=0.0)
    at = next((rate.batch for rate in one.throughput if rate.examples_per_second == best), 0)
    return [
        markdown(one.name),
        _EMBED.get(one.visual, one.visual) + (", no detector" if is_uncharged(record, one) else ""),
        f"{one.tokens[0]} + {one.tokens[1]}" if one.tokens else "-",
        number(parameters.total / 1e6 if parameters else None),
        number(operations.total / 1e9 if operations else None),
        number(visual_ms(latency) if latency else None),
        median(latency.model) if latency else "-",
        str(latency.model.n) if latency else "-",
        number(latency.whole.p50 if latency and not record.spec.stages else None),
        f"{number(best)} at {at}" if best else "-",
        number(_gibibytes(one.memory)),
    ]


def _gibibytes(memory: Memory | None) -> float | None:
    """Weights and activations together; None where either was not measured."""
    if memory is None or memory.activations is None:
        return None
    return (memory.weights + memory.activations) / 1024


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
        if one.latency is None:
            continue
        parts = one.latency.parts
        for name, times in one.latency.stages.items():
            flops = one.operations.stages.get(name, 0) / 1e9 if one.operations else None
            spread = (number(times.p95) if times.n >= _TAIL_FROM else "-", number(times.stdev) if times.n > 1 else "-")
            rows.append([markdown(one.name), name, median(times), *spread, number(parts[name]), number(flops),
                         _millions(one, name)])  # fmt: skip
        rest = f"{100 * one.latency.rest:.2f} % of the whole"
        rows.append([markdown(one.name), REST, rest, "-", "-", number(parts[REST]), "-", _millions(one, UNOWNED)])
    headers = ("model", "stage", "ms p50", "ms p95", "ms stdev", "ms of the whole", "GFLOPs", "params M")
    return tabulate(rows, headers, "github", disable_numparse=True) if rows else ""


def _millions(one: ModelProfile, stage: str) -> str:
    return number(one.parameters.stages.get(stage, 0) / 1e6 if one.parameters else None)


def rate_table(models: Sequence[ModelProfile]) -> str:
    """Examples per second, batch by batch, and what ended the sweep."""
    rows = [
        [
            markdown(one.name), str(rate.batch), number(rate.examples_per_second or None),
            median(rate.ms) if rate.ms else "-", number(rate.joules_per_example),
            markdown(f"{rate.error}: stopped here" if rate.error else ""),
        ]
        for one in models
        for rate in one.throughput
    ]  # fmt: skip
    rows += [
        [
            markdown(one.name), str(one.pipeline.batch), number(one.pipeline.examples_per_second or None),
            median(one.pipeline.ms) if one.pipeline.ms else "-", "-",
            f"from files to answers, {one.pipeline.workers} loader processes" + (
                f"; not measured: {markdown(one.pipeline.error)}" if one.pipeline.error else ""
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
        rows.append([markdown(one.name), *map(number, seconds), *map(number, mib), number(embeddings)])
    headers = (
        "model", "load s", "first batch s", "warm-up s", "weights MiB", "activations MiB", "reserved MiB",
        "process MiB", "word and position tables M",
    )  # fmt: skip
    return tabulate(rows, headers, "github", disable_numparse=True) if rows else ""


def _galleries(models: Sequence[ModelProfile]) -> str:
    """Milliseconds per query, models and ways of searching down, galleries across."""
    sizes = sorted({query.gallery for one in models for query in one.retrieval})
    rows = []
    for one in models:
        for how in WAYS:
            costs = {query.gallery: query for query in one.retrieval if query.how == how}
            if costs:
                rows.append([markdown(one.name), how, *(_cost(costs.get(size)) for size in sizes)])
    headers = ("model", "ms per query by", *(f"{size:,} pictures" for size in sizes))
    return tabulate(rows, headers, "github", disable_numparse=True) if rows else ""


def _cost(query: GalleryQuery | None) -> str:
    if query is None:
        return "-"
    return number(query.ms) if query.measured else f"~{number(query.ms)}"
