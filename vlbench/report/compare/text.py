"""A comparison as text and as a JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from vlbench.core.errors import first_five
from vlbench.metrics.significance import Difference
from vlbench.report.compare.comparison import Comparison, Pair, System, Verdict
from vlbench.report.tables.results import (
    cell,
    github_table,
    merge_methods,
    number_or_dash,
    p_value,
    signed,
    signed_interval,
)  # fmt: skip

_IDS = 10
"""Number of flipped ids that are printed; the JSON has all."""


def comparison_text(comparison: Comparison) -> str:
    """Tables of the systems and of each pair, the flipped ids, and the statistical tests."""
    better = "" if comparison.higher_is_better else ", lower is better"
    n = len(comparison.systems[0].units[0].values)
    parts = [f"{cell(comparison.task)} {cell(comparison.split)} | {cell(comparison.metric)}{better} | n = {n:,}"]
    parts[0] += "".join(f"\nnote: {cell(note)}" for note in comparison.notes)
    headers = ["system", "seeds", comparison.metric, "std over seeds", "test stderr"]
    parts.append(github_table(headers, [_system(system) for system in comparison.systems]))
    for pair in comparison.pairs:
        parts += _pair(comparison, pair)
    return "\n\n".join(parts)


def comparison_json(comparison: Comparison) -> dict[str, object]:
    """The output of `vlbench compare --json`: full precision, all ids."""
    return {
        "task": comparison.task,
        "split": comparison.split,
        "metric": comparison.metric,
        "higher_is_better": comparison.higher_is_better,
        "by": comparison.by,
        "notes": list(comparison.notes),
        "systems": [
            {
                "name": entry.name,
                "runs": [str(run.path.parent) for run in entry.runs],
                "seeds": list(entry.seeds),
                "value": entry.mean,
                "std_over_seeds": entry.spread,
                "test_stderr": entry.stderr,
            }
            for entry in comparison.systems
        ],
        "pairs": [
            {
                "a": pair.a.name,
                "b": pair.b.name,
                "overall": _verdict_json(pair.overall),
                "slices": {entry.part: _verdict_json(entry) for entry in pair.slices},
                "fixed": list(pair.flips.fixed),
                "broken": list(pair.flips.broken),
            }
            for pair in comparison.pairs
        ],
    }


def _pair(comparison: Comparison, pair: Pair) -> list[str]:
    headers = [comparison.by or "examples", "A", "B", "B - A", "95 % interval", "p", "detectable", "n"]
    rows = [_verdict(pair.overall)]
    if pair.slices:
        headers.insert(6, "p (Holm)")
        rows[0].insert(6, "-")
        rows += [[*(row := _verdict(verdict))[:6], p_value(verdict.holm), *row[6:]] for verdict in pair.slices]
    parts = [f"A = {cell(pair.a.name)}, B = {cell(pair.b.name)}: {conclusion(pair.overall.difference)}"]
    parts.append(github_table(headers, rows))
    if pair.flips.fixed or pair.flips.broken:
        named = (("fixed", pair.flips.fixed), ("broken", pair.flips.broken))
        parts.append("\n".join(f"{len(ids):,} {kind}{_ids(ids)}" for kind, ids in named))
    parts.append(_how(pair))
    return parts


def conclusion(difference: Difference) -> str:
    """Whether the difference is significant and, if not, how large it would have had to be."""
    if difference.groups < 2:
        return "one group of examples is too few for a test"
    if difference.p < 0.05:
        return f"they differ (p {p_value(difference.p)})"
    least = number_or_dash(difference.detectable)
    return f"no significant difference; one of {least} or more is detected with power 0.8"


def methods(pair: Pair) -> str:
    """How p and intervals were computed over all examples, and in which slices by another method."""
    rows = (pair.overall, *pair.slices)
    tests = _by_rows([(row.part, row.difference.test) for row in rows])
    return f"p: {tests}; interval: {_by_rows([(row.part, row.difference.method) for row in rows])}"


def _by_rows(methods: Sequence[tuple[str, str]]) -> str:
    """The method of the first row, and the rows of every other method; the number of groups may differ between rows."""
    rows: dict[str, list[str]] = {}
    for (part, _), merged in zip(methods, merge_methods([method for _, method in methods]), strict=True):
        rows.setdefault(merged, []).append(part)
    first, *others = rows
    names = [
        "slices"
        if len(rows[other]) == len(methods) - 1
        else f"row{'s' * (len(rows[other]) > 1)} {cell(first_five(rows[other]))}"
        for other in others
    ]
    exceptions = "; ".join(f"{name}: {other}" for name, other in zip(names, others, strict=True))
    return f"{first} ({exceptions})" if exceptions else first


def _how(pair: Pair) -> str:
    difference = pair.overall.difference
    lines = [methods(pair)]
    if len(pair.a.units) > 1 or len(pair.b.units) > 1:
        lines.append(
            f"standard error of B - A: {difference.stderr:.2f}, from seeds {difference.seed_stderr:.2f} and "
            f"test examples {difference.test_stderr:.2f}; squares add, minus the variance of answers in both"
        )
        alone = [system.name for system in (pair.a, pair.b) if len(system.units) == 1]
        lines += [f"{cell(name)} has one seed, so variation in its training is not counted" for name in alone]
    else:
        lines.append("one seed each: variation in training is not counted")
    return "\n".join(lines)


def _system(system: System) -> list[str]:
    errors = map(number_or_dash, (system.spread, system.stderr))
    return [cell(system.name), ", ".join(map(str, system.seeds)), f"{system.mean:.2f}", *errors]


def _verdict(verdict: Verdict) -> list[str]:
    difference = verdict.difference
    values = [f"{verdict.a:.2f}", f"{verdict.b:.2f}", signed(difference.effect)]
    reach = signed_interval(difference.low, difference.high)
    tested = [p_value(difference.p), number_or_dash(difference.detectable)]
    return [cell(verdict.part), *values, reach, *tested, f"{difference.n:,}"]


def _verdict_json(verdict: Verdict) -> dict[str, object]:
    difference = verdict.difference
    return {
        "a": verdict.a,
        "b": verdict.b,
        "effect": difference.effect,
        "ci95": [difference.low, difference.high] if isfinite(difference.low) else None,
        "stderr": difference.stderr,
        "seed_stderr": difference.seed_stderr,
        "test_stderr": difference.test_stderr,
        "p": difference.p,
        "p_holm": verdict.holm,
        "detectable": difference.detectable if isfinite(difference.detectable) else None,
        "test": difference.test,
        "method": difference.method,
        "n": difference.n,
        "groups": difference.groups,
    }


def _ids(ids: Sequence[str]) -> str:
    shown = [cell(name[:80]) for name in ids[:_IDS]]
    rest = len(ids) - len(shown)
    return f": {', '.join(shown)}{f' and {rest:,} more' if rest else ''}" if ids else ""
