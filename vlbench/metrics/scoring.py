"""From predictions to results: every metric overall, and the main one per slice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from vlbench.core.errors import DataError, first_five
from vlbench.core.examples import Example
from vlbench.core.record import Result
from vlbench.core.results import Metric, MetricAbsentError, Prediction, Score
from vlbench.metrics.uncertainty import mean_score

Slices = dict[str, dict[str, Result]]


@dataclass(frozen=True)
class Scores:
    """A result for each metric that could be taken, and for each other one the reason why not."""

    results: tuple[Result, ...]
    absent: Mapping[str, str]

    @property
    def notes(self) -> tuple[str, ...]:
        """The absent metrics as sentences, those absent for one reason together."""
        together: dict[str, list[str]] = {}
        for name, reason in self.absent.items():
            together.setdefault(reason, []).append(name)
        return tuple(
            f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} absent: {reason}"
            for reason, names in together.items()
        )


def score(
    metrics: Mapping[str, Metric],
    main_metric: str,
    slices: Sequence[str],
    results: Sequence[Any],
    examples: Sequence[Example[Any]],
    cut: Collection[str] = frozenset(),
) -> Scores:
    """One result per metric, in the order of `metrics`; `results` are predictions, or rankings of a gallery.

    main_metric: the metric also broken down by the tags in `slices`, over the examples that carry the tag.
    cut: groups of which only some examples are scored (see `cut_groups`): a metric that counts groups is absent then.

    Raises:
        CoverageError: predictions and examples do not match one to one.
        DataError: a prediction's score or a metric's value is not finite.
    """
    _refuse_unsure(results)
    scored, absent = [], {}
    for name, metric in metrics.items():
        try:
            verdict = metric(results, examples)
            _refuse_fragments(verdict, results, cut)
        except MetricAbsentError as reason:
            absent[name] = str(reason)
            continue
        sliced = _by_slice(verdict, metric, slices, results, examples) if name == main_metric else {}
        scored.append(_result(name, verdict, sliced))
    return Scores(tuple(scored), absent)


def cut_groups(examples: Sequence[Example[Any]], scored: Sequence[Example[Any]]) -> frozenset[str]:
    """The groups that have some of their examples among those scored, but not all."""
    kept = {example.id for example in scored}
    groups = {example.group for example in scored}
    return frozenset(example.group for example in examples if example.id not in kept and example.group in groups)


def parts(examples: Sequence[Example[Any]], tag: str) -> Mapping[str, Sequence[Example[Any]]]:
    """The examples by the value of that tag, numbers in their order, then words; those without the tag are left out."""
    found: dict[str, list[Example[Any]]] = defaultdict(list)
    for example in examples:
        if tag in example.tags:
            found[example.tags[tag]].append(example)
    return dict(
        sorted(
            found.items(),
            key=lambda item: (not item[0].isdecimal(), int(item[0]) if item[0].isdecimal() else 0, item[0]),
        )
    )


def _refuse_unsure(results: Sequence[Any]) -> None:
    bad = [
        item.example_id
        for item in results
        if isinstance(item, Prediction) and not all(map(isfinite, item.scores.values()))
    ]
    if bad:
        raise DataError(
            f"{len(bad):,} predictions have scores that are not finite ({first_five(bad)}): "
            f"expected probabilities, so there is no score"
        )


def _refuse_fragments(verdict: Score, results: Sequence[Any], cut: Collection[str]) -> None:
    """Fewer examples of a group are more easily right throughout, so groups that were cut are not counted."""
    fragments = verdict.per_example.keys() & set(cut)
    if fragments and not _over_examples(verdict, results):
        raise MetricAbsentError(
            f"{len(fragments):,} of its {verdict.n:,} groups lack examples, as only a part of the split is scored"
        )


def _over_examples(verdict: Score, results: Sequence[Any]) -> bool:
    """Whether the metric is a mean over examples, and not over groups of them or queries."""
    return verdict.per_example.keys() <= {item.example_id for item in results if isinstance(item, Prediction)}


def _by_slice(
    overall: Score,
    metric: Metric,
    tags: Sequence[str],
    results: Sequence[Any],
    examples: Sequence[Example[Any]],
) -> Slices:
    """The metric over each part; where it is a mean over examples, from the scores they have already.

    A metric may leave examples out, as GQA's do with unbalanced questions; a part of such examples alone is none.
    """
    groups = {example.id: example.group for example in examples}
    by_id = {item.example_id: item for item in results if isinstance(item, Prediction)}
    of_examples = _over_examples(overall, results)

    def part_score(part: Sequence[Example[Any]]) -> Score | None:
        if not of_examples:
            return metric([by_id[example.id] for example in part], part)
        values = {example.id: overall.per_example[example.id] for example in part if example.id in overall.per_example}
        if not values:
            return None
        return replace(mean_score(overall.name, values, groups), higher_is_better=overall.higher_is_better)

    slices: Slices = {}
    for tag in tags:
        scored = ((value, part_score(part)) for value, part in parts(examples, tag).items())
        known = {value: _result(overall.name, verdict, {}) for value, verdict in scored if verdict is not None}
        if known:
            slices[tag] = known
    return slices


def _result(name: str, verdict: Score, slices: Slices) -> Result:
    if not isfinite(verdict.value):
        raise DataError(f"{name} is {verdict.value} over {verdict.n:,} units: expected a finite number")
    return Result(
        metric=name,
        value=verdict.value,
        n=verdict.n,
        stderr=verdict.stderr,
        ci95=verdict.ci95,
        method=verdict.method,
        higher_is_better=verdict.higher_is_better,
        slices=slices,
    )
