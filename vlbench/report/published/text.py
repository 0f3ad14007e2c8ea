"""Published results as tables, and tables of records compared with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from vlbench.core.splits import joined
from vlbench.report.published.reproduction import Expectation
from vlbench.report.published.results import Confidence, Published, PublishedModel, published
from vlbench.report.tables.markup import Markup, bold, paragraph, table, text, title

_MARKS: Mapping[Confidence, str] = {"read": "", "derived": " †", "unverified": " ?"}
_MEANING = {
    "derived": "†: computed from values of the source",
    "unverified": "?: recalled from the source, not read again",
}


def published_table(
    task: str, splits: Sequence[str], markup: Markup, models: Sequence[PublishedModel] | None = None
) -> str:
    """A table for each protocol: model and variant, a column per split and metric, training splits and source. models:
    the files of published results; None for those of vlbench.
    """
    parts = []
    rows = list(published(task, splits, models))
    for protocol in dict.fromkeys(sorted(row.row.protocol for row in rows)):
        same = [row for row in rows if row.row.protocol == protocol]
        parts += [title(f"published, {text(protocol, markup)}: {text(task, markup)}", markup), _table(same, markup)]
    doubts = {same for row in rows for same in (row.row.confidence, row.trained_on.confidence)}
    if legend := [meaning for confidence, meaning in _MEANING.items() if confidence in doubts]:
        parts.append(paragraph(legend, markup))
    return "\n\n".join(parts)


def expectation_table(judged: Sequence[Expectation], markup: Markup) -> str:
    """Measured and published values with the judgement in bold, or the reason why they are not comparable."""
    headers = ["model", "metric", "measured", "95 % interval", "published", "judgement", "source or reason"]
    rows = [
        [
            text(row.model, markup), text(f"{row.task} {row.split} {row.metric}", markup), _number(row.measured),
            "-" if row.low is None or row.high is None else f"[{row.low:.2f}, {row.high:.2f}]",
            _number(row.published), bold(row.judgement, markup), text(row.reason or row.source, markup, 120),
        ]
        for row in judged
    ]  # fmt: skip
    return table(headers, rows, markup)


def _table(given: Sequence[Published], markup: Markup) -> str:
    """A line for each model, variant and source."""
    lines: dict[tuple[str, ...], tuple[Published, dict[tuple[str, str], float]]] = {}
    for each in given:
        _, cells = lines.setdefault((each.name, each.cited, trained_on_text(each)), (each, {}))
        cells.update({(each.split, metric): value for metric, value in each.metrics.items()})
    columns = _columns(cells for _, cells in lines.values())
    ordered = sorted(lines.values(), key=lambda line: (line[0].name.lower(), line[0].row.source))
    single = len({metric for _, metric in columns}) == 1
    titles = [split if single else f"{split} {metric}" for split, metric in columns]
    headers = ["model", *titles, "trained on", "source"]
    rows = []
    for first, cells in ordered:
        mark = _MARKS[first.row.confidence]
        values = [f"{cells[column]:.2f}{mark}" if column in cells else "-" for column in columns]
        provenance = (text(trained_on_text(first), markup, 120), text(first.place, markup, 200))
        rows.append([text(first.name, markup), *values, *provenance])
    return table([text(each, markup) for each in headers], rows, markup)


def trained_on_text(row: Published) -> str:
    """The training splits as in protocols, other training data, and the mark of their confidence."""
    splits = joined(row.trained_on.splits) if row.trained_on.splits else "-"
    besides = f" {row.trained_on.besides}" if row.trained_on.besides else ""
    return f"{splits}{besides}{_MARKS[row.trained_on.confidence]}"


def _columns(cells: Iterable[Collection[tuple[str, str]]]) -> list[tuple[str, str]]:
    """(split, metric) columns by split; in each, text retrieval before image retrieval and small k before large."""
    every = {column for line in cells for column in line}
    return sorted(every, key=lambda column: (column[0], column[1].split("_")[0] == "ir", len(column[1]), column[1]))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
