"""Verdicts as a Markdown table, as JUnit XML for CI, and as a JSON object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from statistics import fmean
from xml.etree import ElementTree

from vlbench.report.gate.baseline import Baseline
from vlbench.report.gate.trained import MIN_SEEDS
from vlbench.report.gate.verdict import Verdict
from vlbench.report.tables.markup import bold, table, text
from vlbench.report.tables.results import cell, number_or_dash, signed, signed_interval

_IDS = 20
_LONGEST = 300
_MOST = 10_000
"""Characters of a line of ids, whose number and lengths are limited already."""


def gate_table(verdicts: Sequence[Verdict]) -> str:
    """The verdicts in Markdown, with the flipped ids below."""
    if not verdicts:
        return "nothing to judge: neither the runs nor the baseline have entries in these layers"
    counts = Counter(verdict.kind for verdict in verdicts)
    head = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    headers = ["subject", "layer", "verdict", "drop", "95 % interval", "detectable", "reason"]
    parts = [head, table(headers, [_row(verdict) for verdict in verdicts], "md")]
    flipped = [verdict for verdict in verdicts if verdict.flips]
    parts += [f"{text(each.subject.title, 'md', _LONGEST)}: {text(_flips(each), 'md', _MOST)}" for each in flipped]
    return "\n\n".join(parts)


def update_text(old: Baseline | None, new: Baseline) -> str:
    """What an update changed, value by value, and the trained subjects with too few seeds for a verdict."""
    before = _values(old) if old else {}
    lines = [f"{len(new.frozen)} frozen and {len(new.trained)} trained subjects"]
    for title, value in _values(new).items():
        was = before.get(title)
        if was is None or was != value:
            lines.append(f"{text(title, 'md', _LONGEST)}: {'new' if was is None else f'{was:.2f} ->'} {value:.2f}")
    few = [entry for entry in new.trained if len(entry.seeds) < MIN_SEEDS]
    lines += [
        f"{text(entry.subject.title, 'md', _LONGEST)}: {len(entry.seeds)} of the {MIN_SEEDS} seeds that a verdict needs"
        for entry in few
    ]
    return "\n".join(lines)


def _values(baseline: Baseline) -> dict[str, float]:
    """The value of each subject; for trained subjects the mean over seeds."""
    values = {f"{entry.subject.title}, frozen": entry.value for entry in baseline.frozen}
    for entry in baseline.trained:
        values[f"{entry.subject.title}, trained"] = entry.scale * fmean(entry.seeds.values())
    return values


def gate_json(verdicts: Sequence[Verdict], exit_code: int) -> dict[str, object]:
    """The output of `vlbench gate --json`: all flips; null where a number is missing or not finite."""
    rows = [asdict(verdict) | {"subject": verdict.subject.model_dump(mode="json")} for verdict in verdicts]
    for row in rows:
        row |= {name: None for name, value in row.items() if isinstance(value, float) and not isfinite(value)}
    return {"exit_code": exit_code, "verdicts": rows}


def junit(verdicts: Sequence[Verdict]) -> str:
    """A test case for each verdict: a regression is a failure; inconclusive and missing are errors, never a pass."""
    failed, unknown = ({"regression"}, {"inconclusive", "missing"})
    failures, errors = (str(sum(verdict.kind in kinds for verdict in verdicts)) for kinds in (failed, unknown))
    counts = {"tests": str(len(verdicts)), "failures": failures, "errors": errors}
    suite = ElementTree.Element("testsuite", {"name": "vlbench gate", **counts})
    for verdict in verdicts:
        title = _plain(verdict.subject.title)
        case = ElementTree.SubElement(suite, "testcase", classname=f"gate.{verdict.layer}", name=title)
        if verdict.kind in failed | unknown:
            tag = "failure" if verdict.kind in failed else "error"
            reason, flips = _plain(verdict.reason), f"\n{_flips(verdict)}" if verdict.flips else ""
            ElementTree.SubElement(case, tag, type=verdict.kind, message=reason).text = reason + flips
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _row(verdict: Verdict) -> list[str]:
    interval = signed_interval(verdict.low, verdict.high)
    kind = verdict.kind if verdict.kind == "pass" else bold(verdict.kind, "md")
    subject, reason = text(verdict.subject.title, "md", _LONGEST), text(verdict.reason, "md", _LONGEST)
    drop = "-" if verdict.drop is None or not isfinite(verdict.drop) else signed(verdict.drop)
    return [subject, verdict.layer, kind, drop, interval, number_or_dash(verdict.detectable), reason]


def _flips(verdict: Verdict) -> str:
    """The first flipped ids; near ties come last."""
    ids = [name for name in verdict.flips if name not in verdict.near_ties]
    ids += [f"{name} (near tie)" for name in verdict.near_ties]
    rest = f" and {len(ids) - _IDS:,} more" if len(ids) > _IDS else ""
    return f"{len(ids):,} flips: {', '.join(_plain(name[:80]) for name in ids[:_IDS])}{rest}"


def _plain(value: str) -> str:
    """The text without control characters, which XML cannot hold."""
    return cell(value).replace("\\|", "|")
