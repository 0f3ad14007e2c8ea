"""The papers' figures beside a profile's, each with its source, and why they differ; never in a measured column."""

from __future__ import annotations

from itertools import combinations

from tabulate import tabulate

from vlbench.core.profile import ModelProfile, ProfileRecord, Ratio
from vlbench.report.published.results import Cost, complexity
from vlbench.report.tables.markup import markdown, rounded, with_interval


def cost_table(record: ProfileRecord) -> str:
    """Published figures of the models that were measured, and a sentence on each gap; empty where there are none."""
    models = [one for one in record.models if not one.error and _is_whole(record, one)]
    found = [(one, cost) for one in models if (cost := published_cost(one.name))]
    if not found:
        return ""
    rows = [
        [markdown(one.name), rounded(_gflops(one)), markdown(cost.model), f"{cost.visual_tokens} + {cost.text_tokens}",
         rounded(cost.gflops), f"~{cost.milliseconds:.0f}"]
        for one, cost in found
    ]  # fmt: skip
    headers = ("model", "GFLOPs here", "published for", "tokens there", "GFLOPs there", "ms there")
    table = tabulate(rows, headers, "github", disable_numparse=True)
    gaps = dict.fromkeys(f"- {cost.model}: {cost.gap}." for _, cost in found if cost.gap)
    source = f"Published, not measured here: {complexity().paper}; {complexity().conditions}."
    return "\n\n".join([source, table, "\n".join(gaps)])


def ratio_lines(record: ProfileRecord) -> str:
    """How many times as long one model takes as another: measured, by operations, and published."""
    models = {one.name: one for one in record.models if one.latency}
    lines = [_ratio(record, ratio, models[ratio.of], models[ratio.to]) for ratio in record.ratios]
    known = [{ratio.of, ratio.to} for ratio in record.ratios]
    lines += [
        f"{markdown(one)} : {markdown(other)}: no ratio, as fewer than two rounds measured both"
        for one, other in combinations(models, 2)
        if {one, other} not in known
    ]
    return "\n".join(f"- {line}" for line in lines)


def published_cost(name: str) -> Cost | None:
    """The published figures of a model with its size."""
    return next((cost for cost in complexity().rows if name in cost.here), None)


def published_ratio(of: str, to: str) -> tuple[float, str] | None:
    """How many times as long as `to` the papers say that `of` takes, and the source."""
    first, second = published_cost(of), published_cost(to)
    if first and second and first is not second:
        return first.milliseconds / second.milliseconds, f"{first.model} : {second.model}, {complexity().paper}"
    for ratio in complexity().ratios:
        if of in ratio.of and to == ratio.to:
            unsure = " (unverified)" if ratio.confidence == "unverified" else ""
            return ratio.times, f"{ratio.source}{unsure}"
    return None


def _ratio(record: ProfileRecord, ratio: Ratio, of: ModelProfile, to: ModelProfile) -> str:
    first, second = (markdown(f"{one.name}{uncharged(record, one)}") for one in (of, to))
    low, high = ratio.ci95
    line = f"{first} takes {with_interval(ratio.value, ratio.ci95)} times as long as {second}"
    if low <= 1 <= high:
        line += " (no difference shown)"
    if not (_is_whole(record, of) and _is_whole(record, to)):
        return line
    more, less = _gflops(of), _gflops(to)
    if more and less:
        line += f", with {rounded(more / less)} times the operations"
    if said := published_ratio(ratio.of, ratio.to):
        line += f"; published: {rounded(said[0])} ({said[1]})"
    return line


def is_uncharged(record: ProfileRecord, one: ModelProfile) -> bool:
    """Whether a model looks at regions that it is not charged for."""
    return one.visual == "regions" and not record.spec.detector


def uncharged(record: ProfileRecord, one: ModelProfile) -> str:
    """To be put after the name of a model that is not charged for its regions; else empty."""
    return " (without detector)" if is_uncharged(record, one) else ""


def _is_whole(record: ProfileRecord, one: ModelProfile) -> bool:
    """Whether all that the papers measured was measured: every stage, and what makes the regions."""
    return not record.spec.stages and not is_uncharged(record, one)


def _gflops(one: ModelProfile) -> float | None:
    return one.operations.total / 1e9 if one.operations else None
