"""Published figures as pages, a table per task, and as the commands that would make them again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vlbench.core.splits import joined
from vlbench.report.published.reproduction import Expectation
from vlbench.report.published.results import Confidence, Published, PublishedModel, published
from vlbench.report.tables.markup import Markup, bold, paragraph, table, text, title

_MARKS: Mapping[Confidence, str] = {"read": "", "derived": " †", "unverified": " ?"}
_MEANING = {
    "derived": "†: computed from figures of the source",
    "unverified": "?: recalled from the source, not read again",
}


def published_table(
    task: str, splits: Sequence[str], markup: Markup, models: Sequence[PublishedModel] | None = None
) -> str:
    """A table for each protocol: model and variant, a column per split and metric, training splits and source.

    models: the files whose figures are shown; None for those of vlbench.
    """
    parts = []
    found = list(published(task, splits, models))
    for protocol in dict.fromkeys(sorted(one.row.protocol for one in found)):
        of = [one for one in found if one.row.protocol == protocol]
        parts += [title(f"published, {text(protocol, markup)}: {text(task, markup)}", markup), _table(of, markup)]
    doubts = {of for one in found for of in (one.row.confidence, one.trained_on.confidence)}
    if legend := [said for confidence, said in _MEANING.items() if confidence in doubts]:
        parts.append(paragraph(legend, markup))
    return "\n\n".join(parts)


def expectation_table(found: Sequence[Expectation], markup: Markup) -> str:
    """Measured beside published, with the judgement in bold; what could not be judged, with the reason."""
    headers = ["model", "figure", "measured", "95 % interval", "published", "judgement", "source or reason"]
    rows = [
        [
            text(one.model, markup), text(f"{one.task} {one.split} {one.metric}", markup), _number(one.measured),
            "-" if one.low is None or one.high is None else f"[{one.low:.2f}, {one.high:.2f}]",
            _number(one.published), bold(one.judgement, markup), text(one.reason or one.source, markup, 120),
        ]
        for one in found
    ]  # fmt: skip
    return table(headers, rows, markup)


@dataclass(frozen=True)
class _Line:
    """The rows of one model, variant and source, which stand in one line of a table."""

    first: Published
    cells: Mapping[tuple[str, str], float]


def _table(found: Sequence[Published], markup: Markup) -> str:
    lines: dict[tuple[str, ...], dict[tuple[str, str], float]] = {}
    firsts: dict[tuple[str, ...], Published] = {}
    for one in found:
        key = (one.name, one.cited, trained_on_text(one))
        firsts.setdefault(key, one)
        lines.setdefault(key, {}).update({(one.split, metric): value for metric, value in one.metrics.items()})
    columns = _columns(cells for cells in lines.values())
    made = sorted(
        (_Line(firsts[key], cells) for key, cells in lines.items()),
        key=lambda line: (line.first.name.lower(), line.first.row.source),
    )
    single = len({metric for _, metric in columns}) == 1
    figures = [split if single else f"{split} {metric}" for split, metric in columns]
    headers = ["model", *figures, "trained on", "source"]
    return table([text(one, markup) for one in headers], [_row(line, columns, markup) for line in made], markup)


def _row(line: _Line, columns: Sequence[tuple[str, str]], markup: Markup) -> list[str]:
    mark = _MARKS[line.first.row.confidence]
    cells = [f"{line.cells[one]:.2f}{mark}" if one in line.cells else "-" for one in columns]
    said = (text(trained_on_text(line.first), markup, 120), text(line.first.place, markup, 200))
    return [text(line.first.name, markup), *cells, *said]


def trained_on_text(one: Published) -> str:
    """The splits, as protocols spell them, what else there was, and whether that was read."""
    splits = joined(one.trained_on.splits) if one.trained_on.splits else "-"
    besides = f" {one.trained_on.besides}" if one.trained_on.besides else ""
    return f"{splits}{besides}{_MARKS[one.trained_on.confidence]}"


def _columns(cells: Iterable[Collection[tuple[str, str]]]) -> list[tuple[str, str]]:
    """Splits in their order, in each text retrieval before image retrieval and few candidates before many."""
    every = {one for of in cells for one in of}
    return sorted(every, key=lambda one: (one[0], one[1].split("_")[0] == "ir", len(one[1]), one[1]))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
