"""A comparison as text and as a JSON object."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import isfinite

from tabulate import tabulate

from vlbench.core.errors import first_five
from vlbench.metrics.significance import Difference
from vlbench.report.compare.comparison import Comparison, Pair, Verdict
from vlbench.report.compare.systems import System
from vlbench.report.tables.results import cell, p_value, signed

_IDS = 10
"""Number of flipped ids that are printed; the JSON has all."""
_GROUPS = re.compile(r"([\d,]+) groups")


def comparison_text(comparison: Comparison) -> str:
    """Tables of the systems and of each pair, the flipped ids, and the statistical tests."""
    better = "" if comparison.higher_is_better else ", lower is better"
    parts = [
        f"{cell(comparison.task)} {cell(comparison.split)} | {cell(comparison.metric)}{better} | n = {_n(comparison):,}"
    ]
    parts[0] += "".join(f"\nnote: {cell(note)}" for note in comparison.notes)
    parts.append(
        _table(
            ["system", "seeds", comparison.metric, "std over seeds", "test stderr"], map(_system, comparison.systems)
        )
    )
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
    parts.append(_table(headers, rows))
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
    return f"no significant difference; one of {_number(difference.detectable)} or more is detected with power 0.8"


def methods(pair: Pair) -> str:
    """How p and intervals were computed over all examples, and in which slices by another method."""
    rows = (pair.overall, *pair.slices)
    tests = _by_rows([(row.part, row.difference.test) for row in rows])
    return f"p: {tests}; interval: {_by_rows([(row.part, row.difference.method) for row in rows])}"


def _by_rows(methods: Sequence[tuple[str, str]]) -> str:
    """The method of the first row, and the rows of every other method; the number of groups may differ between rows."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for part, method in methods:
        kinds.setdefault(_GROUPS.sub("{}", method), []).append((part, method))
    first, *others = [
        kind.replace("{}", _group_counts(method for _, method in members)) for kind, members in kinds.items()
    ]
    rows = [[part for part, _ in members] for members in kinds.values()][1:]
    names = [
        "slices" if len(members) == len(methods) - 1 else f"row{'s' * (len(members) > 1)} {cell(first_five(members))}"
        for members in rows
    ]
    exceptions = "; ".join(f"{name}: {other}" for name, other in zip(names, others, strict=True))
    return f"{first} ({exceptions})" if exceptions else first


def _group_counts(methods: Iterable[str]) -> str:
    counts = [int(match[1].replace(",", "")) for method in methods for match in _GROUPS.finditer(method)]
    low, high = min(counts, default=0), max(counts, default=0)
    return f"{low:,} groups" if low == high else f"{low:,} to {high:,} groups"


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
    seeds = ", ".join(map(str, system.seeds))
    return [cell(system.name), seeds, f"{system.mean:.2f}", _number(system.spread), _number(system.stderr)]


def _verdict(verdict: Verdict) -> list[str]:
    difference = verdict.difference
    interval = f"[{signed(difference.low)}, {signed(difference.high)}]" if isfinite(difference.low) else "-"
    p, detectable = p_value(difference.p), _number(difference.detectable)
    return [
        cell(verdict.part),
        f"{verdict.a:.2f}",
        f"{verdict.b:.2f}",
        signed(difference.effect),
        interval,
        p,
        detectable,
        f"{difference.n:,}",
    ]


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


def _n(comparison: Comparison) -> int:
    return len(comparison.systems[0].units[0].values)


def _number(value: float | None) -> str:
    return "-" if value is None or not isfinite(value) else f"{value:.2f}"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]] | map[list[str]]) -> str:
    align = ["left"] + ["right"] * (len(headers) - 1)
    return tabulate(
        list(rows), [cell(header) for header in headers], tablefmt="github", disable_numparse=True, colalign=align
    )
