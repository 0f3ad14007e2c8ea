"""Verdicts as a table for people, JUnit for CI, and one JSON object."""

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
from vlbench.report.tables.results import cell, signed

_IDS = 20
_LONGEST = 300
_MOST = 10_000
"""Characters of a line of ids, of which there are few and each is cut already."""


def gate_table(verdicts: Sequence[Verdict]) -> str:
    """The verdicts in Markdown, the flips by id below."""
    if not verdicts:
        return "nothing was judged: neither the runs nor the baseline have anything in these layers"
    counts = Counter(verdict.kind for verdict in verdicts)
    head = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    headers = ["subject", "layer", "verdict", "drop", "95 % interval", "detectable", "reason"]
    parts = [head, table(headers, [_row(verdict) for verdict in verdicts], "md")]
    parts += [
        f"{text(one.subject.title, 'md', _LONGEST)}: {text(_flips(one), 'md', _MOST)}" for one in verdicts if one.flips
    ]
    return "\n\n".join(parts)


def update_text(old: Baseline | None, new: Baseline) -> str:
    """What an update changed, figure by figure, and what it keeps that can never be judged."""
    before = _figures(old) if old else {}
    lines = [f"{len(new.frozen)} frozen and {len(new.trained)} trained subjects"]
    for title, value in _figures(new).items():
        was = before.get(title)
        if was is None or was != value:
            lines.append(f"{text(title, 'md', _LONGEST)}: {'new' if was is None else f'{was:.2f} ->'} {value:.2f}")
    few = [entry for entry in new.trained if len(entry.seeds) < MIN_SEEDS]
    lines += [
        f"{text(entry.subject.title, 'md', _LONGEST)}: {len(entry.seeds)} of the {MIN_SEEDS} seeds that a verdict needs"
        for entry in few
    ]
    return "\n".join(lines)


def _figures(of: Baseline) -> dict[str, float]:
    """The figure of each subject; of trained ones the mean over seeds."""
    figures = {f"{entry.subject.title}, frozen": entry.value for entry in of.frozen}
    for entry in of.trained:
        figures[f"{entry.subject.title}, trained"] = entry.scale * fmean(entry.seeds.values())
    return figures


def gate_json(verdicts: Sequence[Verdict], exit_code: int) -> dict[str, object]:
    """What `vlbench gate --json` prints; all flips, no number where there is none."""
    rows = [asdict(verdict) | {"subject": verdict.subject.model_dump(mode="json")} for verdict in verdicts]
    finite = [
        {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in row.items()}
        for row in rows
    ]
    return {"exit_code": exit_code, "verdicts": finite}


def junit(verdicts: Sequence[Verdict]) -> str:
    """A test case for each verdict: a regression fails it; what is unknown is an error, never a pass."""
    failed, unknown = ({"regression"}, {"inconclusive", "missing"})
    suite = ElementTree.Element(
        "testsuite",
        name="vlbench gate",
        tests=str(len(verdicts)),
        failures=str(sum(one.kind in failed for one in verdicts)),
        errors=str(sum(one.kind in unknown for one in verdicts)),
    )
    for one in verdicts:
        case = ElementTree.SubElement(suite, "testcase", classname=f"gate.{one.layer}", name=_plain(one.subject.title))
        if one.kind in failed | unknown:
            tag = "failure" if one.kind in failed else "error"
            flips = f"\n{_flips(one)}" if one.flips else ""
            ElementTree.SubElement(case, tag, type=one.kind, message=_plain(one.reason)).text = (
                _plain(one.reason) + flips
            )
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _row(one: Verdict) -> list[str]:
    interval = "-"
    if one.low is not None and one.high is not None and isfinite(one.low):
        interval = f"[{signed(one.low)}, {signed(one.high)}]"
    kind = one.kind if one.kind == "pass" else bold(one.kind, "md")
    subject, reason = text(one.subject.title, "md", _LONGEST), text(one.reason, "md", _LONGEST)
    drop = "-" if one.drop is None or not isfinite(one.drop) else signed(one.drop)
    return [subject, one.layer, kind, drop, interval, _number(one.detectable), reason]


def _flips(one: Verdict) -> str:
    """The first flips by id, those that were no near ties before the others."""
    ids = [name for name in one.flips if name not in one.near_ties]
    ids += [f"{name} (near tie)" for name in one.near_ties]
    rest = f" and {len(ids) - _IDS:,} more" if len(ids) > _IDS else ""
    return f"{len(ids):,} flips: {', '.join(_plain(name[:80]) for name in ids[:_IDS])}{rest}"


def _plain(value: str) -> str:
    """No control character, which XML cannot hold at all."""
    return cell(value).replace("\\|", "|")


def _number(value: float | None) -> str:
    return "-" if value is None or not isfinite(value) else f"{value:.2f}"
