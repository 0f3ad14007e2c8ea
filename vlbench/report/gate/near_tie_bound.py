"""Bound on how much a metric can change when some near ties change their answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from math import isclose
from typing import TYPE_CHECKING

from vlbench.core.record import Result
from vlbench.core.results import Direction
from vlbench.metrics.retrieval import DIRECTIONS, LEVELS
from vlbench.records.folder import RunFolder
from vlbench.records.rankings import read_rankings
from vlbench.records.samples import read_samples
from vlbench.report.tables.per_example import RECALL, SUM, WAYS, query_weights

if TYPE_CHECKING:
    import pandas as pd


def largest_change(run: RunFolder, result: Result, changed: Collection[str]) -> float | None:
    """The largest change of a value in percent when these units change from wrong to right or back.

    In a mean over examples each counts 100 / n; in a recall each query of its direction counts by the size of its fold;
    in rsum at all three levels. A value that is not a mean of the run's scores may weigh groups, slices or labels
    equally: it gets the largest change of a mean over any of these. run: a folder whose files `read_answers` has read.
    result: the value in the run's record. changed: units as `read_answers` names them: examples, or a direction and a
    query. Returns the change in the unit of the value; None for a value of ranks that is not a recall, which has no
    bound.
    """
    rows = read_samples(run.samples, controls=False)
    if run.ranks.is_file():
        return _of_queries(run, rows, result.metric, changed)
    scored = rows[rows["score"].notna()]
    if len(scored) and isclose(100 * float(scored["score"].mean()), result.value, rel_tol=1e-6, abs_tol=1e-6):
        return 100 * len(changed) / len(scored)
    return 100 * max(_of_parts(rows, changed))


def _of_queries(run: RunFolder, rows: pd.DataFrame, metric: str, changed: Collection[str]) -> float | None:
    recall = RECALL.fullmatch(metric)
    if not recall and not SUM.fullmatch(metric):
        return None
    ways: tuple[Direction, ...] = (WAYS[recall["way"]],) if recall else DIRECTIONS
    rankings = read_rankings(run.ranks, ())
    weights = {
        f"{way} {name}": weight
        for way in ways
        for name, weight in query_weights([ranking for ranking in rankings if ranking.direction == way], rows).items()
    }
    return 100 * (1 if recall else len(LEVELS)) * sum(weights.get(unit, 0.0) for unit in changed)


def _of_parts(rows: pd.DataFrame, changed: Collection[str]) -> Iterable[float]:
    """The fraction of groups that hold a changed example, and for a mean over parts the weight of the changed ones."""
    groups = dict(zip(rows["example_id"], rows["group"], strict=True))
    yield len({groups[name] for name in changed}) / len({*groups.values()})
    for column in ("group", "reference", *(name for name in rows.columns if name.startswith("tag_"))):
        held = rows[rows[column].notna()]  # an example without a tag is in no slice
        parts = dict(zip(held["example_id"], held[column], strict=True))
        sizes = Counter(parts.values())
        yield sum(1 / (len(sizes) * sizes[parts[name]]) for name in changed if name in parts)
