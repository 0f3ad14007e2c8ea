"""Per-example values of a run's metric, read from the files in its folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isclose, isfinite
from typing import TYPE_CHECKING

from vlbench.core.errors import DataError, ExitCode, VlbenchError
from vlbench.core.record import RunRecord
from vlbench.core.results import Direction, Ranking
from vlbench.metrics.retrieval import DIRECTIONS, LEVELS, Ties, hit_probability
from vlbench.records.folder import RunFolder
from vlbench.records.rankings import read_rankings
from vlbench.records.samples import read_samples

if TYPE_CHECKING:
    import pandas as pd

RECALL = re.compile(r"(?P<way>tr|ir)_r(?P<k>\d+)(?:_(?P<ties>optimistic|expected))?")
SUM = re.compile(r"rsum(?:_(?P<ties>optimistic|expected))?")
WAYS: Mapping[str, Direction] = {"tr": "i2t", "ir": "t2i"}
_TIES: Mapping[str | None, Ties] = {None: "pessimistic", "optimistic": "optimistic", "expected": "expected"}


@dataclass(frozen=True)
class Units:
    """Per-unit values of a metric, which is `scale` times the mean of `values` (unit -> value). groups: unit ->
    cluster. tags: tag -> unit -> slice; empty if units are not examples. data: a hash of the questions and references.
    """

    metric: str
    scale: float
    values: Mapping[str, float]
    groups: Mapping[str, str]
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    data: str = ""

    @property
    def value(self) -> float:
        return self.scale * sum(self.values.values()) / len(self.values)


def read_units(run: RunFolder, record: RunRecord, metric: str) -> Units:
    """The units of one of the run's metrics: examples; groups for consistency; images or texts for a ranking.

    Raises DataError: the run's files are missing or corrupt.
    Raises VlbenchError: the metric has no per-unit values, or they do not reproduce the record's value (exit 10).
    """
    result = record.result(metric)
    if result is None:
        known = ", ".join(known_result.metric for known_result in record.results) or "none"
        raise _cannot(f"{run.path} has no {metric!r}: it has {known}; give another --metric")
    if not isfinite(result.value):
        raise _cannot(f"{run.path} has no value for {metric} ({result.value}): rerun it with --no-resume")
    rows = read_samples(run.samples, controls=False)
    if RECALL.fullmatch(metric) or SUM.fullmatch(metric):
        units = _of_ranking(read_rankings(run.ranks, ()), rows, metric)
    else:
        units = _of_examples(rows, metric, whole=metric == "consistency" != record.task.main_metric)
    if not units.values or not isclose(units.value, result.value, rel_tol=1e-6, abs_tol=1e-6):
        main = record.task.main_metric
        raise _cannot(f"{run.path} has no per-example values for its {metric}: compare by --metric {main}")
    return replace(units, data=asked(rows))


def asked(rows: pd.DataFrame) -> str:
    """A hash of the examples' questions and references, without their answers."""
    columns = (rows[name] for name in ("example_id", "group", "text", "reference"))
    return hashlib.sha256(json.dumps(sorted(zip(*columns, strict=True))).encode()).hexdigest()


def _of_examples(rows: pd.DataFrame, metric: str, whole: bool) -> Units:
    scored = rows[rows["score"].notna()]
    values = dict(zip(scored["example_id"], scored["score"].astype(float), strict=True))
    groups = dict(zip(scored["example_id"], scored["group"], strict=True))
    if whole:
        together: dict[str, float] = {}
        for name, value in values.items():
            together[groups[name]] = min(value, together.get(groups[name], 1.0))
        return Units(metric, 100.0, together, {name: name for name in together})
    tags = {
        column.removeprefix("tag_"): {
            name: value
            for name, value in zip(scored["example_id"], scored[column], strict=True)
            if isinstance(value, str)
        }
        for column in scored.columns
        if column.startswith("tag_")
    }
    return Units(metric, 100.0, values, groups, tags)


def _of_ranking(rankings: Iterable[Ranking], rows: pd.DataFrame, metric: str) -> Units:
    """Recall over the queries of one direction, or rsum over images, each pooled with its texts. Values are means over
    folds, so the weight of a query depends on the size of its fold.
    """
    image_of = dict(zip(rows["example_id"], rows["group"], strict=True))
    ranked = {
        direction: [ranking for ranking in rankings if ranking.direction == direction] for direction in DIRECTIONS
    }
    recall, total = RECALL.fullmatch(metric), SUM.fullmatch(metric)
    ties = _TIES[(recall or total or {"ties": None})["ties"]]

    weights = {direction: query_weights(queries, rows) for direction, queries in ranked.items()}

    def shares(direction: Direction, k: int) -> dict[str, float]:
        queries, weigh = ranked[direction], weights[direction]
        return {one.query_id: hit_probability(one, k, ties) * weigh[one.query_id] * len(queries) for one in queries}

    if recall:
        values = shares(WAYS[recall["way"]], int(recall["k"]))
        return Units(metric, 100.0, values, {name: image_of.get(name, name) for name in values})
    sums = dict.fromkeys(rows["group"], 0.0)
    for direction in DIRECTIONS:
        for k in LEVELS:
            ranking = shares(direction, k)
            for name, value in ranking.items():
                sums[image_of.get(name, name)] += value * len(sums) / len(ranking) / (len(DIRECTIONS) * len(LEVELS))
    return Units(metric, 600.0, sums, {name: name for name in sums})


def query_weights(queries: Sequence[Ranking], rows: pd.DataFrame) -> dict[str, float]:
    """The weight of each query of one direction in its recall, a mean over folds; weights sum to 1."""
    names = rows["group" if queries and queries[0].direction == "i2t" else "example_id"]
    fold = dict(zip(names, map(_fold, rows["reference"]), strict=True))
    sizes = Counter(fold[ranking.query_id] for ranking in queries)
    return {ranking.query_id: 1 / (len(sizes) * sizes[fold[ranking.query_id]]) for ranking in queries}


def _fold(reference: str) -> str:
    values = json.loads(reference)
    if not isinstance(values, dict) or "fold" not in values:
        raise DataError(f"a ranking's reference is {reference[:80]!r}: expected a caption with its fold; rerun the run")
    return str(values["fold"])


def _cannot(message: str) -> VlbenchError:
    return VlbenchError(message, ExitCode.NOT_COMPARABLE)
