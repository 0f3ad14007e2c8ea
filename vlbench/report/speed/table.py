"""Tables of a profile: models as in the papers, stages, ratios, throughput, retrieval and start-up."""

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
from vlbench.report.tables.markup import markdown, rounded, with_interval

_EMBED = {"regions": "region", "grid": "grid", "patches": "patch", "none": "none"}
"""Names of visual embeddings in the papers."""
_HEADERS = (
    "model", "visual embed", "tokens", "params M", "GFLOPs", "visual ms", "model ms", "n", "whole ms",
    "examples/s", "GiB",
)  # fmt: skip
_TAIL_FROM = 20
"""Number of values from which the 95th percentile is shown."""


def speed_table(record: ProfileRecord) -> str:
    """All tables of a profile with heading and footnotes."""
    parts = [_heading(record), model_table(record)]
    parts += [stage_table(record.models), ratio_lines(record), rate_table(record.models), _galleries(record.models)]
    parts += [start_table(record.models), cost_table(record)]
    errors = [f"{markdown(model.name)}: {markdown(model.error)}" for model in record.models if model.error]
    return "\n\n".join(part for part in (*parts, "\n".join(errors), footnote(record)) if part)


def _heading(record: ProfileRecord) -> str:
    spec, where = record.spec, record.environment
    device = where.gpu or where.cpu
    width, height = spec.picture
    inputs = f"images of {width} x {height} pixels, texts of {spec.words} words"
    noisy = [f"NOISY, do not quote: {'; '.join(record.machine.reasons)}"] if record.machine.noisy else []
    stages = markdown(", ".join(spec.stages))
    only = [f"stages {stages} only: latency and ratios are of these, all else of whole models"]
    line = f"{markdown(spec.task)} | {device}, {record.machine.threads} threads | {spec.dtype} | {inputs}"
    without = any(map(partial(is_uncharged, record), record.models))
    free = ["--no-detector: the time of the detector is not counted for models that use regions"] if without else []
    return "\n".join([line, *(only if spec.stages else []), *free, *noisy])


def model_table(record: ProfileRecord) -> str:
    """A row per model, as in the papers."""
    rows = [_row(record, model) for model in record.models]
    return tabulate(rows, _HEADERS, "github", disable_numparse=True)


def _row(record: ProfileRecord, model: ModelProfile) -> list[str]:
    latency, operations, parameters = model.latency, model.operations, model.parameters
    best = max((rate.examples_per_second for rate in model.throughput), default=0.0)
    at = next((rate.batch for rate in model.throughput if rate.examples_per_second == best), 0)
    return [
        markdown(model.name),
        _EMBED.get(model.visual, model.visual) + (", no detector" if is_uncharged(record, model) else ""),
        f"{model.tokens[0]} + {model.tokens[1]}" if model.tokens else "-",
        rounded(parameters.total / 1e6 if parameters else None),
        rounded(operations.total / 1e9 if operations else None),
        rounded(visual_ms(latency) if latency else None),
        median(latency.model) if latency else "-",
        str(latency.model.n) if latency else "-",
        rounded(latency.whole.p50 if latency and not record.spec.stages else None),
        f"{rounded(best)} at {at}" if best else "-",
        rounded(_gibibytes(model.memory)),
    ]


def _gibibytes(memory: Memory | None) -> float | None:
    """Weights and activations in GiB; None if either was not measured."""
    if memory is None or memory.activations is None:
        return None
    return (memory.weights + memory.activations) / 1024


def visual_ms(latency: Latency) -> float | None:
    """Median milliseconds of the visual embedding of the papers: detector, if any, and image encoder; None if neither
    was measured."""
    medians = [times.p50 for name, times in latency.stages.items() if name in VISUAL]
    return sum(medians) if medians else None


def median(times: Times) -> str:
    """Milliseconds with their 95 % interval, or with their range if there are too few values."""
    if times.n >= INTERVAL_FROM:
        return with_interval(times.p50, times.ci95)
    low, high = map(rounded, times.ci95)
    return f"{rounded(times.p50)} ({f'range of {times.n}: {low} to {high}' if times.n > 1 else 'of 1'})"


def stage_table(models: Sequence[ModelProfile]) -> str:
    """Milliseconds, operations and parameters of every stage and of the rest."""
    rows = []
    for model in models:
        if model.latency is None:
            continue
        parts = model.latency.parts
        for name, times in model.latency.stages.items():
            flops = model.operations.stages.get(name, 0) / 1e9 if model.operations else None
            tail, stdev = times.p95 if times.n >= _TAIL_FROM else None, times.stdev if times.n > 1 else None
            spread = (rounded(tail), rounded(stdev))
            rows.append([markdown(model.name), name, median(times), *spread, rounded(parts[name]), rounded(flops),
                         _millions(model, name)])  # fmt: skip
        rest = f"{100 * model.latency.rest:.2f} % of the whole"
        rows.append([markdown(model.name), REST, rest, "-", "-", rounded(parts[REST]), "-", _millions(model, UNOWNED)])
    headers = ("model", "stage", "ms p50", "ms p95", "ms stdev", "ms of the whole", "GFLOPs", "params M")
    return tabulate(rows, headers, "github", disable_numparse=True) if rows else ""


def _millions(model: ModelProfile, stage: str) -> str:
    return rounded(model.parameters.stages.get(stage, 0) / 1e6 if model.parameters else None)


def rate_table(models: Sequence[ModelProfile]) -> str:
    """Examples per second by batch size, and the error that ended the sweep."""
    rows = [
        [
            markdown(model.name), str(rate.batch), rounded(rate.examples_per_second or None),
            median(rate.ms) if rate.ms else "-", rounded(rate.joules_per_example),
            markdown(f"{rate.error}: stopped here" if rate.error else ""),
        ]
        for model in models
        for rate in model.throughput
    ]  # fmt: skip
    rows += [
        [
            markdown(model.name), str(model.pipeline.batch), rounded(model.pipeline.examples_per_second or None),
            median(model.pipeline.ms) if model.pipeline.ms else "-", "-",
            f"from files to answers, {model.pipeline.workers} loader processes" + (
                f"; not measured: {markdown(model.pipeline.error)}" if model.pipeline.error else ""
            ),
        ]
        for model in models
        if model.pipeline
    ]  # fmt: skip
    headers = ("model", "batch", "examples/s", "ms of a batch", "J/example", "note")
    return tabulate(rows, headers, "github", disable_numparse=True) if rows else ""


def start_table(models: Sequence[ModelProfile]) -> str:
    """Start-up time and memory of models."""
    rows = []
    for model in models:
        if model.memory is None:
            continue
        memory, warmup = model.memory, model.latency.warmup_ms if model.latency else ()
        embeddings = model.parameters.embeddings / 1e6 if model.parameters else None
        mib = (memory.weights, memory.activations, memory.reserved, memory.host)
        seconds = (model.load_seconds, model.first_batch_seconds, max(warmup) / 1000 if warmup else None)
        rows.append([markdown(model.name), *map(rounded, seconds), *map(rounded, mib), rounded(embeddings)])
    headers = (
        "model", "load s", "first batch s", "warm-up s", "weights MiB", "activations MiB", "reserved MiB",
        "process MiB", "word and position tables M",
    )  # fmt: skip
    return tabulate(rows, headers, "github", disable_numparse=True) if rows else ""


def _galleries(models: Sequence[ModelProfile]) -> str:
    """Milliseconds per query: models and ways of retrieval down, gallery sizes across."""
    sizes = sorted({query.gallery for model in models for query in model.retrieval})
    rows = []
    for model in models:
        for how in WAYS:
            costs = {query.gallery: query for query in model.retrieval if query.how == how}
            if costs:
                rows.append([markdown(model.name), how, *(_cost(costs.get(size)) for size in sizes)])
    headers = ("model", "ms per query by", *(f"{size:,} images" for size in sizes))
    return tabulate(rows, headers, "github", disable_numparse=True) if rows else ""


def _cost(query: GalleryQuery | None) -> str:
    if query is None:
        return "-"
    return rounded(query.ms) if query.measured else f"~{rounded(query.ms)}"
