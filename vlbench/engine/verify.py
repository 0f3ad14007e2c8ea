"""Check finished records: their seal, the files beside them, and the scores that these files give."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from math import isclose
from typing import TYPE_CHECKING, Literal, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from vlbench import catalog
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import Example, Examples, Query, captioned
from vlbench.core.record import Result, RunRecord
from vlbench.core.results import Prediction
from vlbench.core.task import Adapter, Task
from vlbench.metrics.scoring import Results, score
from vlbench.records.collect import FoundRun
from vlbench.records.rankings import read_rankings
from vlbench.records.samples import read_samples

if TYPE_CHECKING:
    import pandas as pd

State = Literal["recomputed", "sealed", "unsealed", "unfinished", "broken"]
_EQUAL = 1e-9
"""The relative difference up to which recomputed numbers are equal: libraries may round the last digit otherwise."""


@dataclass(frozen=True)
class Verification:
    """The check of a record. why: what is broken, or why nothing was recomputed; else empty."""

    path: str
    state: State
    why: str = ""


def verify(run: FoundRun) -> Verification:
    """Check a record that could be read, so that its seal is intact.

    recomputed: the samples beside it are those of the run, and the task's metrics give its scores again, with intervals
    and slices. sealed: only the seal was checked, as no samples are beside it or the scores cannot be computed from
    them. unsealed: it has no seal, as in versions before 0.2.0, or it was removed; scores that samples do not give are
    broken all the same. unfinished: the run has not ended, so there is nothing to check. broken: it does not fit its
    files.
    """
    record, path = run.record, str(run.path)
    if record.status != "done":
        return Verification(path, "unfinished", f"status {record.status}")
    state: State = "sealed" if record.seal else "unsealed"
    if run.path.name != "run.json" or not run.folder.samples.exists():
        absent = sorted(record.files) if run.path.name == "run.json" else []
        if absent:
            return Verification(path, "broken", f"{', '.join(absent)} is missing beside it")
        return Verification(path, state, "no samples beside it")
    try:
        differences = list(_differences(run))
    except DataError as error:
        return Verification(path, "broken", error.message)
    except _UnknownScoresError as error:
        return Verification(path, state, str(error))
    if differences:
        return Verification(path, "broken", f"its samples give other scores: {'; '.join(differences[:3])}")
    return Verification(path, "recomputed" if record.seal else "unsealed")


class _UnknownScoresError(Exception):
    """The scores cannot be computed from the samples."""


def _differences(run: FoundRun) -> Iterator[str]:
    """The scores of the record that its files do not give."""
    record = run.record
    task = _task(run)
    rows = read_samples(run.folder.samples)
    reference = _reference_type(task.adapter)
    for control, recorded in {"": record.results, **record.controls}.items():
        own = rows[rows["control"] == control]
        if task.card.output == "rank" and control:
            continue  # ranks of controls are not kept
        if not recorded:
            continue
        examples = list(_examples(own, reference))
        results: Results = (
            read_rankings(run.folder.ranks, captioned(examples)) if task.card.output == "rank" else _predictions(own)
        )
        yield from _differing(recorded, _scores(task, record, results, examples), f"{control} " if control else "")


def _task(run: FoundRun) -> Task:
    record = run.record
    tasks_dir = run.folder.resolve_path(record.spec.tasks_dir)
    try:
        task = catalog.load_task(record.task.name, run.folder.path, record.task.source, tasks_dir=tasks_dir)
    except VlbenchError as error:
        raise _UnknownScoresError(f"its task cannot be loaded: {error.message}") from None
    if task.card.version != record.task.version:
        raise _UnknownScoresError(
            f"its scores are of version {record.task.version} of the task, and this is version {task.card.version}"
        )
    return task


def _reference_type(adapter: Adapter) -> TypeAdapter[object]:
    """The type of the task's references, from the annotation of its adapter: an iterator of `Example[Reference]`."""
    try:
        (example,) = get_args(get_type_hints(adapter).get("return"))
        (reference,) = get_args(example)
    except (NameError, TypeError, ValueError):
        reference = None
    if not isinstance(reference, type) or not is_dataclass(reference):
        raise _UnknownScoresError("its adapter is not annotated with the type of its references, Example[Reference]")
    return TypeAdapter(reference)


def _examples(rows: pd.DataFrame, reference: TypeAdapter[object]) -> Iterator[Example[object]]:
    """The examples in the rows of the samples, without images."""
    tags = [name for name in rows.columns if name.startswith("tag_")]
    for row in rows.to_dict("records"):
        try:
            known = reference.validate_python(json.loads(row["reference"]))
        except (ValueError, ValidationError) as error:
            raise DataError(f"the reference of {row['example_id']!r} is {row['reference'][:80]!r}: {error}") from None
        own = {name.removeprefix("tag_"): row[name] for name in tags if isinstance(row[name], str)}
        yield Example(row["example_id"], Query((), row["text"]), known, row["group"], own)


def _predictions(rows: pd.DataFrame) -> list[Prediction]:
    return [
        Prediction(
            row["example_id"],
            row["prediction"],
            dict(zip(row["labels"], row["label_scores"], strict=True)),
            row["status"],
            row["error"],
            row["written"],
        )
        for row in rows.to_dict("records")
    ]


def _scores(task: Task, record: RunRecord, results: Results, examples: Examples) -> Mapping[str, Result]:
    main = record.task.main_metric or task.card.main_metric
    scored = score(task.metrics, main, task.card.slices, results, examples)
    return {result.metric: result for result in scored.results}


def _differing(recorded: Sequence[Result], computed: Mapping[str, Result], who: str) -> Iterator[str]:
    for result in recorded:
        name = f"{who}{result.metric}"
        again = computed.get(result.metric)
        if again is None:
            yield f"{name} is not among them"
        elif not _is_equal(_numbers(result), _numbers(again)):
            yield f"{name} {_shown(again)} where the record has {_shown(result)}"
        else:
            for tag, parts in result.slices.items():
                same = again.slices.get(tag, {})
                if parts.keys() != same.keys():
                    yield f"{name} has other slices of {tag}"
                    continue
                yield from _differing(
                    [part.model_copy(update={"metric": value}) for value, part in parts.items()],
                    dict(same),
                    f"{name} of {tag} ",
                )


def _numbers(result: Result) -> list[float | None]:
    return [result.value, result.n, result.stderr, *(result.ci95 or (None, None))]


def _is_equal(left: Sequence[float | None], right: Sequence[float | None]) -> bool:
    return all(
        one is other or (one is not None and other is not None and isclose(one, other, rel_tol=_EQUAL, abs_tol=_EQUAL))
        for one, other in zip(left, right, strict=True)
    )


def _shown(result: Result) -> str:
    interval = f" [{result.ci95[0]:.4f}, {result.ci95[1]:.4f}]" if result.ci95 else ""
    return f"{result.value:.4f}{interval} (n {result.n:,})"
