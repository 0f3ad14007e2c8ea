"""What comes out of a model, and what a metric makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from vlbench.core.examples import Examples

Status = Literal["ok", "unparsed", "error", "skipped"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer to one example; `scores` maps an answer to its probability, best first.

    text: what a model wrote, where the answer was taken out of that.
    """

    example_id: str
    answer: str
    scores: Mapping[str, float] = field(default_factory=dict)
    status: Status = "ok"
    error: str = ""
    text: str = ""


Direction = Literal["i2t", "t2i"]
"""Which way is searched: from an image to texts, or from a text to images."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Where a query's best positive stands among all candidates of its fold, counted from 0.

    query_id: a picture's key (i2t) or a text's id (t2i). rank_low: negatives scored higher than the best positive.
    rank_high: with those of equal score. positives: how many positives have that score. top: the ids of the best few
    candidates with their scores, best first, ties in the gallery's order. depth: how many candidates a list ranked
    that does not hold all of them; a rank of that much then means further down.
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
    """A metric's verdict.

    value: in percent for accuracies and recalls, full precision. n: units scored (examples, or groups
    for consistency). stderr, ci95: in the unit of `value`, from test sampling only; None where one unit
    leaves nothing to estimate. per_example: unit id -> value of that unit in [0, 1].
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
    """Raised by a metric whose evidence is not in the data: it is left out with the reason, never scored as zero."""


class Metric(Protocol):
    """A pure function of results and examples whose ids match one to one; may raise MetricAbsentError.

    The results are predictions, and rankings where the task's output is `rank`.
    """

    def __call__(self, results: Sequence[Any], examples: Examples, /) -> Score: ...
