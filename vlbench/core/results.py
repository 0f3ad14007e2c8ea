"""The answers and rankings of models, and the scores that metrics compute from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from vlbench.core.examples import Examples

Status = Literal["ok", "unparsed", "error", "skipped"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer to one example. scores: answer -> probability, best first. text: generated, with the answer in it."""

    example_id: str
    answer: str
    scores: Mapping[str, float] = field(default_factory=dict)
    status: Status = "ok"
    error: str = ""
    text: str = ""


Direction = Literal["i2t", "t2i"]
"""The direction of retrieval: from an image to texts, or from a text to images."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The rank of a query's best positive among all candidates of its fold, counted from 0.

    query_id: an image's key (i2t) or a text's id (t2i). rank_low: the number of negatives scored higher than the best
    positive; rank_high: with those of equal score. positives: the number of positives with that score. top: the ids of
    the best few candidates with their scores, best first, ties in the gallery's order. depth: the length of a ranked
    list that does not hold all candidates; a rank equal to it means further down.
    """

    query_id: str
    direction: Direction
    rank_low: int
    rank_high: int
    positives: int = 1
    top: tuple[tuple[str, float], ...] = ()
    depth: int | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """The value of a metric.

    value: in percent for accuracies and recalls, full precision. n: units scored (examples, or groups for consistency).
    stderr, ci95: in the unit of `value`, from test sampling only; None for a single unit. per_example: unit id -> value
    of that unit in [0, 1].
    """

    name: str
    value: float
    n: int
    stderr: float | None
    ci95: tuple[float, float] | None
    per_example: Mapping[str, float]
    higher_is_better: bool = True
    method: str = ""


class MetricAbsentError(Exception):
    """Raised by a metric that the data does not support: it is left out with the reason, never scored as zero."""


class Metric(Protocol):
    """A pure function of results (for `rank` rankings, else predictions) and examples with the same ids.

    May raise MetricAbsentError.
    """

    def __call__(self, results: Sequence[Any], examples: Examples, /) -> Score: ...
