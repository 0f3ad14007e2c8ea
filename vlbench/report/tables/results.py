"""Tables of `vlbench run` and `vlbench score`: Markdown that is readable on a terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Literal

from tabulate import tabulate

from vlbench.core.errors import printable
from vlbench.core.modes import MODES
from vlbench.core.record import Coverage, Decoding, Result, RunRecord
from vlbench.metrics.direction import is_better

_NOTHING = "-"
_GROUPS = re.compile(r"([\d,]+) groups")
_DATA = {"world": "built-in world", "real": "real data"}
_SAMPLING = "test sampling only"


def run_table(record: RunRecord) -> str:
    """The results of a run: heading, warnings, metrics, slices and how intervals were computed. The first result is the
    task's main metric, which the majority baseline belongs to, except in a ranking.
    """
    results = without_equal_ties(record.results)
    parts = [heading(record), _metrics_table(record) if results else "no results"]
    for result in results:
        controls = {name: result_of(control, result.metric) for name, control in record.controls.items()}
        parts += _slice_tables(result, controls, record.slice_majorities)
    return "\n\n".join([*parts, *_unanswered(record), *_footnotes(results)])


def scoreboard(records: Sequence[RunRecord]) -> str:
    """Models by tasks: the main metric of each run with its 95 % interval; a dash where there is no run."""
    models = _models(records)
    columns = list(dict.fromkeys(map(_column, records)))
    scores = {(_asked(record), _column(record)): record.result(record.task.main_metric) for record in records}
    rows = [
        [cell(name), *(_with_interval(scores.get((asked, column))) for column in columns)]
        for asked, name in models.items()
    ]
    remarks = [
        f"{cell(models[_asked(record)])} on {cell(record.task.name)}: {line}"
        for record in records
        for line in _warnings(record)
    ]
    data = ", ".join(dict.fromkeys(_DATA[record.task.source] for record in records))
    return "\n\n".join([data, github_table(["model", *columns], rows), *(["\n".join(remarks)] if remarks else [])])


def _models(records: Sequence[RunRecord]) -> dict[tuple[str, int], str]:
    """(model as given, seed) -> name: the model's name if it is unique, else the model as given; with the seed."""
    names = {_asked(record): f"{record.model.name}-{record.model.size}" for record in records}
    counts = Counter((name, seed) for (_, seed), name in names.items())
    several = len({seed for _, seed in names}) > 1
    return {
        (asked, seed): (name if counts[name, seed] == 1 else asked) + (f", seed {seed}" if several else "")
        for (asked, seed), name in names.items()
    }


def _asked(record: RunRecord) -> tuple[str, int]:
    """The model as given, and the seed."""
    return f"{record.spec.model}-{record.model.size}", record.spec.seed


def _column(record: RunRecord) -> str:
    return f"{record.task.name} {record.task.split} {record.task.main_metric}"


def _with_interval(result: Result | None) -> str:
    return _NOTHING if result is None else f"{number(result.value)} {interval(result)}"


def score_table(
    task: str,
    split: str,
    results: Sequence[Result],
    notes: Sequence[str] = (),
    coverage: Coverage | None = None,
    source: Literal["world", "real"] = "real",
) -> str:
    """Output of `vlbench score` for a prediction file: values, intervals, n, slices and notes."""
    partial = [*map(_note, notes), *_coverage_lines(coverage)]
    head = "\n".join([f"{cell(task)} {cell(split)} | {_DATA[source]}", *partial])
    results = without_equal_ties(results)
    rows = [_measured(cell(result.metric), result) for result in results]
    parts = [head, github_table(["metric", "value", "95 % interval", "n"], rows) if results else "no results"]
    for result in results:
        parts += _slice_tables(result, {}, {})
    return "\n\n".join([*parts, *_footnotes(results)])


def heading(record: RunRecord) -> str:
    """One line with task, model and data, then a line for each warning, such as a limit or missing answers."""
    task, model = record.task, record.model
    data = _DATA[task.source]
    if task.source == "world" and record.spec.domain != "plain":
        data += f" ({record.spec.domain})"
    title = (
        f"{cell(task.name)} {cell(task.split)} | {cell(model.name)}-{cell(model.size)} | {data} | n = {task.n_scored:,}"
    )
    return "\n".join([title, *_warnings(record)])


def selection_line(record: RunRecord) -> str:
    """The score that selected the checkpoint, which is not the reported score; empty if nothing was selected."""
    train = record.train
    if train is None or train.selection is None:
        return ""
    metric = f"{cell(record.task.main_metric)} " if record.task.main_metric else ""
    return (
        f"selection: {metric}{train.selection:.2f} on {cell(train.selected_on)} "
        f"(step {train.best_step:,}, {train.weights} weights)"
    )


def decoding_text(how: Decoding | None) -> str:
    """The generation settings as `name value`; empty if nothing was generated."""
    return "" if how is None else ", ".join(f"{name} {value}" for name, value in how.model_dump(mode="json").items())


def cell(text: str) -> str:
    """A string that cannot break a table or a terminal: one line, no control characters, pipes escaped."""
    return printable(text).replace("|", "\\|")


def p_value(value: float) -> str:
    """A p-value with three decimals."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def signed(value: float) -> str:
    """A difference with sign and two decimals; +0.00 if it rounds to zero from either side."""
    return f"{round(value, 2) + 0.0:+.2f}"


def number(value: float) -> str:
    """A value with two decimals; more if it would round to a whole number, so that 50.00 is exactly fifty."""
    if not isfinite(value):
        return "no value"
    nearest = round(value)
    whole = abs(value - nearest) < 1e-9
    texts = (f"{value:.{decimals}f}" for decimals in range(2, 11))
    return next(text for text in texts if whole or float(text) != nearest)


def interval(result: Result) -> str:
    """The 95 % interval; a dash if there is none."""
    return f"[{result.ci95[0]:.2f}, {result.ci95[1]:.2f}]" if result.ci95 else _NOTHING


def without_equal_ties(results: Sequence[Result]) -> list[Result]:
    """The results without those under another tie rule that gives the same value."""
    values = {result.metric: result.value for result in results}
    kept = []
    for result in results:
        base = result.metric.removesuffix("_optimistic").removesuffix("_expected")
        if base == result.metric or result.value != values.get(base):
            kept.append(result)
    return kept


def _warnings(record: RunRecord) -> list[str]:
    lines = [_from_scratch(record)] if record.model.from_scratch else []
    if record.status != "done":
        lines.append(
            f"{record.status.upper()}: this run is not finished{f' ({cell(record.error)})' if record.error else ''}"
        )
    task = record.task
    if task.limit is not None and task.n_scored == task.n_total:
        lines.append(f"limit {task.limit:g} leaves nothing out: {task.n_total:,} examples")
    elif task.limit is not None:
        chosen = "the first ones" if record.spec.limit_mode == "head" else "chosen at random"
        lines.append(f"limit {task.limit:g}: {task.n_scored:,} of {task.n_total:,} examples, {chosen}")
    elif task.n_scored != task.n_total and record.status == "done":
        lines.append(f"partial: {task.n_scored:,} of {task.n_total:,} examples")
    if record.spec.rerank_k is not None:
        lines.append(
            f"re-ranked: of each query only the {record.spec.rerank_k:,} best by embeddings were scored as pairs"
        )
    others = record.environment.trials_at_once - 1
    if others > 0:
        lines.append(
            f"speed: measured beside {others:,} other trial{'s' if others > 1 else ''}; --jobs 1 runs one at a time"
        )
    return [*lines, *map(_note, task.notes), *_coverage_lines(record.coverage)]


def _from_scratch(record: RunRecord) -> str:
    if MODES[record.spec.mode].untrained:
        return "RANDOM WEIGHTS: NEITHER PRETRAINED NOR TRAINED"
    if record.model.size == "base":
        return "TRAINED FROM SCRATCH: NOT COMPARABLE WITH THE PRETRAINED MODEL OF THE PAPER"
    return "trained from scratch, without pretrained weights"


def _note(text: str) -> str:
    return f"note: {cell(text)}"


def _coverage_lines(coverage: Coverage | None) -> list[str]:
    if coverage is None:
        return []
    faults = {"missing": coverage.missing, "duplicate": coverage.duplicate, "errors": coverage.errors}
    counts = [f"{count:,} {name}" for name, count in faults.items() if count]
    lines = [f"coverage: {', '.join(counts)} of {coverage.expected:,} expected examples"] if counts else []
    if coverage.unparsed:
        lines.append(f"unparsed: {coverage.unparsed:,} of {coverage.expected:,} answers could not be read")
    return lines


def _unanswered(record: RunRecord) -> list[str]:
    """A sentence about the examples that could not be answered; none where there are no such."""
    if not record.unanswered or not record.results:
        return []
    return [
        f"{record.unanswered:,} of {record.task.n_scored:,} examples could not be answered and count as wrong, in "
        f"values and in intervals"
    ]


def _metrics_table(record: RunRecord) -> str:
    controls = list(record.controls)
    unseen = "random ranking" if record.chance else "majority"
    headers = ["metric", "value", "95 % interval", "n", unseen, *(f"{name} control" for name in controls)]
    rows = []
    for place, result in enumerate(without_equal_ties(record.results)):
        of_controls = [result_of(record.controls[name], result.metric) for name in controls]
        first = place == 0
        baseline = record.chance.get(result.metric, record.majority if first else None)
        speed = f"{record.efficiency.examples_per_second:,.1f}" if first and record.efficiency else _NOTHING
        values = [baseline, *(None if control is None else control.value for control in of_controls)]
        shown = [_NOTHING if value is None else number(value) for value in values]
        rows.append([*_measured(cell(result.metric), result), *shown, speed])
    return github_table([*headers, "examples/s"], rows)


def _measured(name: str, result: Result) -> list[str]:
    return [name, number(result.value), interval(result), f"{result.n:,}"]


def _slice_tables(
    result: Result, controls: Mapping[str, Result | None], majorities: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """One table for each tag of the result, and a line with the slices not above the image-blind baseline."""
    tables = []
    for tag, values in result.slices.items():
        unseen = blind_baselines(tag, controls, majorities)
        rows = []
        for value, part in values.items():
            baselines = [number(scores[value]) if value in scores else _NOTHING for scores in unseen.values()]
            rows.append([*_measured(cell(value), part), *baselines])
        tables.append(github_table([tag, result.metric, "95 % interval", "n", *unseen], rows))
        # A tag without majorities is the answer itself: the image-blind baseline of such a slice means nothing.
        parts = values.items() if tag in majorities else ()
        stuck = [cell(value) for value, part in parts if not is_above(part, value, unseen)]
        if stuck:
            named = f"all {len(stuck)}" if len(stuck) == len(values) else ", ".join(stuck)
            tables.append(f"not significantly above the image-blind baseline, by {cell(tag)}: {named}")
    return tables


def blind_baselines(
    tag: str, controls: Mapping[str, Result | None], majorities: Mapping[str, Mapping[str, float]]
) -> dict[str, Mapping[str, float]]:
    """Image-blind baselines of a tag: column -> slice -> value, for each baseline and control that has the tag."""
    columns: dict[str, Mapping[str, float]] = {"majority": majorities[tag]} if tag in majorities else {}
    for name, result in controls.items():
        if result is not None and tag in result.slices:
            columns[f"{name} control"] = {value: part.value for value, part in result.slices[tag].items()}
    return columns


def is_above(part: Result, value: str, unseen: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether the slice's interval lies on the better side of every image-blind baseline; true if there is none."""
    low, high = part.ci95 or (part.value, part.value)
    worst = low if part.higher_is_better else high
    return all(is_better(worst, scores[value], part.higher_is_better) for scores in unseen.values() if value in scores)


def github_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is left-aligned, the others right-aligned."""
    align = ["left"] + ["right"] * (len(headers) - 1)
    # Numbers are written already: parsed again, 50.00 would come out as 50.
    return tabulate(rows, [cell(name) for name in headers], tablefmt="github", disable_numparse=True, colalign=align)


def result_of(results: Sequence[Result], metric: str) -> Result | None:
    """The result of that metric; None where there is none."""
    return next((result for result in results if result.metric == metric), None)


def _footnotes(results: Sequence[Result]) -> list[str]:
    """How the intervals were computed; they cover test sampling only."""
    methods = "; ".join(
        dict.fromkeys(merge_methods([cell(result.method) or "unnamed" for result in results if result.ci95]))
    )
    return [f"95 % interval: {methods}" + ("" if _SAMPLING in methods else f"; {_SAMPLING}")] if methods else []


def merge_methods(methods: Sequence[str]) -> list[str]:
    """The methods, where those that differ only in their number of groups name all: "over 964 to 1,074 groups"."""
    kinds = [_GROUPS.sub("{}", method) for method in methods]
    counts: dict[str, list[int]] = {kind: [] for kind in kinds}
    for kind, method in zip(kinds, methods, strict=True):
        counts[kind] += [int(number.replace(",", "")) for number in _GROUPS.findall(method)]
    return [kind.replace("{}", _groups(counts[kind])) for kind in kinds]


def _groups(counts: Sequence[int]) -> str:
    low, high = min(counts, default=0), max(counts, default=0)
    return f"{low:,} groups" if low == high else f"{low:,} to {high:,} groups"


def signed_interval(low: float | None, high: float | None) -> str:
    """The interval of a difference; a dash if there is none."""
    if low is None or high is None or not isfinite(low):
        return _NOTHING
    return f"[{signed(low)}, {signed(high)}]"


def number_or_dash(value: float | None) -> str:
    """A value with two decimals; a dash if there is none or if it is not finite."""
    return _NOTHING if value is None or not isfinite(value) else f"{value:.2f}"
