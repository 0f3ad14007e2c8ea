"""Check finished records: their seal, the files beside them, and the scores that these files give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from pydantic import TypeAdapter

from vlbench import catalog
from vlbench.core.errors import DataError, VlbenchError, is_out_of_memory
from vlbench.core.examples import Example, Examples, ImageRef, Query, captioned
from vlbench.core.record import Result, RunRecord
from vlbench.core.results import Prediction
from vlbench.core.task import Adapter, Task
from vlbench.data.cache.index import example_type
from vlbench.metrics.scoring import Results, score
from vlbench.records.collect import FoundRun
from vlbench.records.folder import read_record_file
from vlbench.records.rankings import read_rankings
from vlbench.records.samples import read_samples
from vlbench.records.seal import hashes_of

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


def verify_file(path: Path, tasks_dir: Path | None = None) -> Verification:
    """`verify` a record's file; a record that cannot be read is broken."""
    try:
        record = read_record_file(path)
    except DataError as error:
        return Verification(str(path), "broken", error.message.removeprefix(f"{path} "))
    return verify(FoundRun(path, record), tasks_dir)


def verify(run: FoundRun, tasks_dir: Path | None = None) -> Verification:
    """Check a record that could be read, so that its seal is intact.

    recomputed: the files beside it are those of the run, and the task's metrics give its scores again, with intervals,
    slices and controls. sealed: only the seal was checked, as no samples are beside it or the scores cannot be computed
    from them. unsealed: it has no seal, as in versions before 0.2.0, or it was removed; scores that samples do not give
    are broken all the same. unfinished: the run has not ended, so there is nothing to check. broken: it does not fit
    its files.

    tasks_dir: the user's own tasks. The folder that the record names is not searched: verifying the record of a
    stranger must not run code that came with it.
    """
    record, path = run.record, str(run.path)
    if record.status != "done":
        return Verification(path, "unfinished", f"status {record.status}")
    state: State = "unsealed" if record.is_unsealed else "sealed"
    try:
        # A copy of a record under another name has no files beside it: those are of other runs.
        present = hashes_of(run.folder.result_files) if run.path.name == run.folder.run_json.name else {}
        if not present:
            return Verification(path, state, "no samples beside it")
        changed = sorted({name for name, _ in present.items() ^ record.files.items()}) if record.seal else []
        if changed:
            return Verification(path, "broken", f"{' and '.join(changed)}: missing, or not as the run wrote it")
        differences = list(_differences(run, tasks_dir))
    except _UnknownScoresError as error:
        return Verification(path, state, str(error))
    except VlbenchError as error:
        return Verification(path, "broken", error.message)
    except Exception as error:  # whatever a metric raises at rows that no run writes
        if is_out_of_memory(error):
            raise
        return Verification(path, "broken", f"its samples cannot be scored ({type(error).__name__}: {error})")
    if differences:
        code = "; the code of its task has changed since" if _has_other_code(record, tasks_dir) else ""
        return Verification(path, "broken", f"its samples give other scores: {'; '.join(differences[:3])}{code}")
    return Verification(path, "recomputed") if record.seal else Verification(path, state, "its samples give its scores")


class _UnknownScoresError(Exception):
    """The scores cannot be computed from the samples."""


def _differences(run: FoundRun, tasks_dir: Path | None) -> Iterator[str]:
    """The scores of the record that its files do not give. Raises _UnknownScoresError: they cannot be computed."""
    record = run.record
    if not record.results:
        raise _UnknownScoresError("it has no scores: the answers of its split are not public")
    task = _task(run, tasks_dir)
    rows = read_samples(run.folder.samples)
    reference = _reference_type(task.adapter)
    for control, recorded in {"": record.results, **record.controls}.items():
        if task.card.is_retrieval and control:
            continue  # ranks of controls are not kept
        own = rows[rows["control"] == control]
        examples = list(_examples(own, reference))
        results: Results = (
            read_rankings(run.folder.ranks, captioned(examples)) if task.card.is_retrieval else _predictions(own)
        )
        yield from _differing(recorded, _scores(task, record, results, examples), f"{control} " if control else "")


def _task(run: FoundRun, tasks_dir: Path | None) -> Task:
    record = run.record
    try:
        task = catalog.load_task(record.task.name, run.folder.path, record.task.source, tasks_dir=tasks_dir)
    except VlbenchError as error:
        raise _UnknownScoresError(f"its task cannot be loaded: {error.message}") from None
    if task.card.version != record.task.version:
        raise _UnknownScoresError(
            f"its scores are of version {record.task.version} of the task, and this is version {task.card.version}"
        )
    if record.spec.tasks_dir and _has_other_code(record, tasks_dir):
        raise _UnknownScoresError(
            f"its task, from {record.spec.tasks_dir}, is not here: give its folder as --tasks-dir"
        )
    return task


def _has_other_code(record: RunRecord, tasks_dir: Path | None) -> bool:
    """Whether the task's card and code are not those of the run."""
    return catalog.task_sha256(record.task.name, tasks_dir) != record.task.task_sha256


def _reference_type(adapter: Adapter) -> TypeAdapter[object]:
    """The type of the task's references, from the annotation of its adapter: an iterator of `Example[Reference]`."""
    example = example_type(adapter)
    if example is None:
        raise _UnknownScoresError("its adapter is not annotated with the type of its references, Example[Reference]")
    return TypeAdapter(get_args(example)[0])


def _examples(rows: pd.DataFrame, reference: TypeAdapter[object]) -> Iterator[Example[object]]:
    """The examples in the rows of the samples; their images have a key, but no file."""
    tags = [name for name in rows.columns if name.startswith("tag_")]
    for row in rows.to_dict("records"):
        images = tuple(ImageRef(Path(key), key) for key in row["image_ids"])
        known = reference.validate_json(row["reference"])
        own = {name.removeprefix("tag_"): row[name] for name in tags if isinstance(row[name], str)}
        yield Example(row["example_id"], Query(images, row["text"]), known, row["group"], own)


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
