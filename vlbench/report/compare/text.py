"""A comparison as people read it, and as one JSON object."""

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
"""Flips that are named on a terminal; the JSON has all."""
_GROUPS = re.compile(r"([\d,]+) groups")


def comparison_text(found: Comparison) -> str:
    """Tables of the systems and of each pair, the flips by id, and what the tests were."""
    better = "" if found.higher_is_better else ", lower is better"
    parts = [f"{cell(found.task)} {cell(found.split)} | {cell(found.metric)}{better} | n = {_n(found):,}"]
    parts[0] += "".join(f"\nnote: {cell(note)}" for note in found.notes)
    parts.append(
        _table(["system", "seeds", found.metric, "std over seeds", "test stderr"], map(_system, found.systems))
    )
    for pair in found.pairs:
        parts += _pair(found, pair)
    return "\n\n".join(parts)


def comparison_json(found: Comparison) -> dict[str, object]:
    """What `vlbench compare --json` prints: full precision, all ids."""
    return {
        "task": found.task,
        "split": found.split,
        "metric": found.metric,
        "higher_is_better": found.higher_is_better,
        "by": found.by,
        "notes": list(found.notes),
        "systems": [
            {
                "name": one.name,
                "runs": [str(run.path.parent) for run in one.runs],
                "seeds": list(one.seeds),
                "value": one.mean,
                "std_over_seeds": one.spread,
                "test_stderr": one.stderr,
            }
            for one in found.systems
        ],
        "pairs": [
            {
                "a": pair.a.name,
                "b": pair.b.name,
                "overall": _verdict_json(pair.overall),
                "slices": {one.part: _verdict_json(one) for one in pair.slices},
                "fixed": list(pair.flips.fixed),
                "broken": list(pair.flips.broken),
            }
            for pair in found.pairs
        ],
    }


def _pair(found: Comparison, pair: Pair) -> list[str]:
    headers = [found.by or "examples", "A", "B", "B - A", "95 % interval", "p", "detectable", "n"]
    rows = [_verdict(pair.overall)]
    if pair.slices:
        headers.insert(6, "p (Holm)")
        rows[0].insert(6, "-")
        rows += [[*(row := _verdict(one))[:6], p_value(one.holm), *row[6:]] for one in pair.slices]
    parts = [f"A = {cell(pair.a.name)}, B = {cell(pair.b.name)}: {said(pair.overall.difference)}"]
    parts.append(_table(headers, rows))
    if pair.flips.fixed or pair.flips.broken:
        named = (("fixed", pair.flips.fixed), ("broken", pair.flips.broken))
        parts.append("\n".join(f"{len(ids):,} {kind}{_ids(ids)}" for kind, ids in named))
    parts.append(_how(pair))
    return parts


def said(found: Difference) -> str:
    """Whether a difference is shown and, where it is not, how large it would have had to be."""
    if found.groups < 2:
        return "one group of examples shows nothing"
    if found.p < 0.05:
        return f"they differ (p {p_value(found.p)})"
    return f"no difference shown; one of {_number(found.detectable)} or more would have been, in 4 of 5 such tests"


def methods(pair: Pair) -> str:
    """How p and intervals were made over all examples and, where otherwise, in which slices."""
    rows = (pair.overall, *pair.slices)
    tests = _by_rows([(one.part, one.difference.test) for one in rows])
    return f"p: {tests}; interval: {_by_rows([(one.part, one.difference.method) for one in rows])}"


def _by_rows(said: Sequence[tuple[str, str]]) -> str:
    """The method of the first row, and the rows of each other one; rows of one method may differ in their groups."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for part, method in said:
        kinds.setdefault(_GROUPS.sub("{}", method), []).append((part, method))
    first, *others = [kind.replace("{}", _group_counts(method for _, method in of)) for kind, of in kinds.items()]
    rows = [[part for part, _ in of] for of in kinds.values()][1:]
    names = [
        "slices" if len(of) == len(said) - 1 else f"row{'s' * (len(of) > 1)} {cell(first_five(of))}" for of in rows
    ]
    exceptions = "; ".join(f"{name}: {other}" for name, other in zip(names, others, strict=True))
    return f"{first} ({exceptions})" if exceptions else first


def _group_counts(methods: Iterable[str]) -> str:
    counts = [int(found[1].replace(",", "")) for method in methods for found in _GROUPS.finditer(method)]
    low, high = min(counts, default=0), max(counts, default=0)
    return f"{low:,} groups" if low == high else f"{low:,} to {high:,} groups"


def _how(pair: Pair) -> str:
    found = pair.overall.difference
    lines = [methods(pair)]
    if len(pair.a.units) > 1 or len(pair.b.units) > 1:
        lines.append(
            f"standard error of B - A: {found.stderr:.2f}, from seeds {found.seed_stderr:.2f} and test examples "
            f"{found.test_stderr:.2f}; squares add, less the chance in single answers that is in both"
        )
        alone = [one.name for one in (pair.a, pair.b) if len(one.units) == 1]
        lines += [f"{cell(name)} has one seed, so chance in its training is not counted" for name in alone]
    else:
        lines.append("one seed each: chance in training is not counted")
    return "\n".join(lines)


def _system(one: System) -> list[str]:
    seeds = ", ".join(map(str, one.seeds))
    return [cell(one.name), seeds, f"{one.mean:.2f}", _number(one.spread), _number(one.stderr)]


def _verdict(one: Verdict) -> list[str]:
    found = one.difference
    interval = f"[{signed(found.low)}, {signed(found.high)}]" if isfinite(found.low) else "-"
    p, detectable = p_value(found.p), _number(found.detectable)
    return [
        cell(one.part),
        f"{one.a:.2f}",
        f"{one.b:.2f}",
        signed(found.effect),
        interval,
        p,
        detectable,
        f"{found.n:,}",
    ]


def _verdict_json(one: Verdict) -> dict[str, object]:
    found = one.difference
    return {
        "a": one.a,
        "b": one.b,
        "effect": found.effect,
        "ci95": [found.low, found.high] if isfinite(found.low) else None,
        "stderr": found.stderr,
        "seed_stderr": found.seed_stderr,
        "test_stderr": found.test_stderr,
        "p": found.p,
        "p_holm": one.holm,
        "detectable": found.detectable if isfinite(found.detectable) else None,
        "test": found.test,
        "method": found.method,
        "n": found.n,
        "groups": found.groups,
    }


def _ids(ids: Sequence[str]) -> str:
    shown = [cell(name[:80]) for name in ids[:_IDS]]
    rest = len(ids) - len(shown)
    return f": {', '.join(shown)}{f' and {rest:,} more' if rest else ''}" if ids else ""


def _n(found: Comparison) -> int:
    return len(found.systems[0].units[0].values)


def _number(value: float | None) -> str:
    return "-" if value is None or not isfinite(value) else f"{value:.2f}"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]] | map[list[str]]) -> str:
    align = ["left"] + ["right"] * (len(headers) - 1)
    return tabulate(
        list(rows), [cell(one) for one in headers], tablefmt="github", disable_numparse=True, colalign=align
    )
