"""Published costs next to those of a profile, each with its source and why they differ."""

from __future__ import annotations

from itertools import combinations

from tabulate import tabulate

from vlbench.core.profile import ModelProfile, ProfileRecord, Ratio
from vlbench.report.published.results import Cost, complexity
from vlbench.report.tables.markup import markdown, rounded, with_interval


def cost_table(record: ProfileRecord) -> str:
    """Published costs of the measured models, and a sentence on each gap; empty if there are none."""
    models = [model for model in record.models if not model.error and _is_whole(record, model)]
    pairs = [(model, cost) for model in models if (cost := published_cost(model.name))]
    if not pairs:
        return ""
    rows = [
        [markdown(model.name), rounded(_gflops(model)), markdown(cost.model),
         f"{cost.visual_tokens} + {cost.text_tokens}", rounded(cost.gflops), f"~{cost.milliseconds:.0f}"]
        for model, cost in pairs
    ]  # fmt: skip
    headers = ("model", "GFLOPs here", "published for", "tokens there", "GFLOPs there", "ms there")
    table = tabulate(rows, headers, "github", disable_numparse=True)
    gaps = dict.fromkeys(f"- {cost.model}: {cost.gap}." for _, cost in pairs if cost.gap)
    source = f"Published, not measured here: {complexity().paper}; {complexity().conditions}."
    return "\n\n".join([source, table, "\n".join(gaps)])


def ratio_lines(record: ProfileRecord) -> str:
    """Ratios of the latencies of two models: measured, by operations, and published."""
    models = {model.name: model for model in record.models if model.latency}
    lines = [_ratio(record, ratio, models[ratio.of], models[ratio.to]) for ratio in record.ratios]
    known = [{ratio.of, ratio.to} for ratio in record.ratios]
    lines += [
        f"{markdown(model)} : {markdown(other)}: no ratio, as fewer than two rounds measured both"
        for model, other in combinations(models, 2)
        if {model, other} not in known
    ]
    return "\n".join(f"- {line}" for line in lines)


def published_cost(name: str) -> Cost | None:
    """The published costs of a model with its size."""
    return next((cost for cost in complexity().rows if name in cost.here), None)


def published_ratio(of: str, to: str) -> tuple[float, str] | None:
    """The published ratio of the latency of `of` to that of `to`, and its source."""
    first, second = published_cost(of), published_cost(to)
    if first and second and first is not second:
        return first.milliseconds / second.milliseconds, f"{first.model} : {second.model}, {complexity().paper}"
    for ratio in complexity().ratios:
        if of in ratio.of and to == ratio.to:
            unsure = " (unverified)" if ratio.confidence == "unverified" else ""
            return ratio.times, f"{ratio.source}{unsure}"
    return None


def _ratio(record: ProfileRecord, ratio: Ratio, of: ModelProfile, to: ModelProfile) -> str:
    first, second = (
        markdown(f"{model.name}{' (without detector)' if is_uncharged(record, model) else ''}") for model in (of, to)
    )
    low, high = ratio.ci95
    line = f"{first} takes {with_interval(ratio.value, ratio.ci95)} times as long as {second}"
    if low <= 1 <= high:
        line += " (no significant difference)"
    if not (_is_whole(record, of) and _is_whole(record, to)):
        return line
    more, less = _gflops(of), _gflops(to)
    if more and less:
        line += f", with {rounded(more / less)} times the operations"
    if published := published_ratio(ratio.of, ratio.to):
        line += f"; published: {rounded(published[0])} ({published[1]})"
    return line


def is_uncharged(record: ProfileRecord, model: ModelProfile) -> bool:
    """Whether a model uses regions whose detector was not measured."""
    return model.visual == "regions" and not record.spec.detector


def _is_whole(record: ProfileRecord, model: ModelProfile) -> bool:
    """Whether everything that the papers measured was measured: every stage, and the detector."""
    return not record.spec.stages and not is_uncharged(record, model)


def _gflops(model: ModelProfile) -> float | None:
    return model.operations.total / 1e9 if model.operations else None
