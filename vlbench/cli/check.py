"""`vlbench data check`: verify counts, checksums, images and split overlap, and images that other tasks train on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlbench.cli.spec import split_names
from vlbench.core.errors import ExitCode, first_five

if TYPE_CHECKING:
    from vlbench.core.progress import Progress
    from vlbench.core.task import Task
    from vlbench.data.splits.leaks import FoundLeak
    from vlbench.data.splits.overlap import Contents, Overlap
    from vlbench.data.splits.verify import SplitReport


@dataclass(frozen=True)
class TaskReport:
    """The results for one task: split by split, what its splits share, and what other tasks train on."""

    task: str
    splits: list[SplitReport]
    overlaps: list[Overlap]
    leaks: list[FoundLeak]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; a leak between tasks is only a warning."""
        return all(split.ok for split in self.splits) and all(overlap.verdict != "WRONG" for overlap in self.overlaps)


def check(
    task: Annotated[str, typer.Option(help="Task to check, or several with commas.")],
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data; left out: synthetic data.")] = None,
    tasks_dir: Annotated[Path | None, typer.Option(help="Folder with your own task folders.")] = None,
    split: Annotated[str | None, typer.Option(help="Splits, with commas; left out: all that exist.")] = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Decode and compare every image.")] = True,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Accept incomplete data; the report says so.")
    ] = False,
    verify_data: Annotated[
        bool,
        typer.Option(
            "--verify-data",
            help="Hash all data files, images included; compare with the hashes of the first verification.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Verify counts, checksums, images and split overlap; exit code 5 if something is wrong.

    It is wrong if the split to select on or to report shares examples or images with the train split. Images that
    another task trains on are a warning: measured if that task is named too, else taken from the task's card.

    \b
    Examples:
      vlbench data check --task nlvr2 --data-root NLVR2
      vlbench data check --task nlvr2 --data-root NLVR2 --split dev --no-images --json
      vlbench data check --task nlvr2 --data-root NLVR2 --verify-data
      vlbench data check --task snli_ve,flickr30k_retrieval --data-root DATA
      vlbench data check --task flickr8k_retrieval --data-root PART_OF_FLICKR8K --allow-partial
    """
    from vlbench.cli.progress import open_progress
    from vlbench.engine.source import load_task

    with open_progress(quiet=as_json) as progress:
        tasks = [
            load_task(name, data_root, tasks_dir=tasks_dir, allow_partial=allow_partial, progress=progress)
            for name in split_names("task", task)
        ]
        reports = _reports(tasks, split, images, verify_data, progress)
    typer.echo(json.dumps(_as_object(reports), ensure_ascii=False, default=str) if as_json else _text(reports))
    if not all(report.ok for report in reports):
        raise typer.Exit(ExitCode.DATA)


def _reports(
    tasks: list[Task], split: str | None, images: bool, verify_data: bool, progress: Progress
) -> list[TaskReport]:
    """Check the splits of each task, then their overlaps and the images shared with other tasks."""
    from vlbench.data.splits.leaks import leaks
    from vlbench.data.splits.overlap import digests, overlaps
    from vlbench.data.splits.verify import check_split, read_split

    contents: dict[str, list[Contents]] = {}
    splits: dict[str, list[SplitReport]] = {}
    for task in tasks:
        name = task.card.name
        chosen = splits_there(task) if split is None else split_names("split", split)
        contents[name] = [read_split(task, split_name) for split_name in chosen]
        splits[name] = [
            check_split(task, content, images, partial(progress.step, f"decoding {content.split}"))
            for content in contents[name]
        ]
        if verify_data:
            splits[name] = [_verified(task, *pair, progress) for pair in zip(splits[name], contents[name], strict=True)]
    every = [content for listed in contents.values() for content in listed]
    known = digests(every, partial(progress.step, "comparing images")) if images else {}
    cards = {task.card.name: task.card for task in tasks}
    return [
        TaskReport(name, splits[name], overlaps(card, contents[name], known), leaks(task, contents, cards, known))
        for task in tasks
        for name, card in [(task.card.name, task.card)]
    ]


def _verified(task: Task, report: SplitReport, contents: Contents, progress: Progress) -> SplitReport:
    """The report, extended by whether the split's files are the same as at their first verification."""
    from vlbench.data.splits.verified import verify

    result = verify(task, report.split, contents.images, partial(progress.step, f"verifying {report.split}"))
    if result.fault:
        return replace(report, faults=(*report.faults, result.fault))
    return replace(report, notes=(*report.notes, result.said))


def splits_there(task: Task) -> list[str]:
    """The splits whose annotation files exist; images and optional files may be missing.

    Raises:
        DataError: there is none.
    """
    from vlbench.core.errors import DataError

    existing = [name for name in task.card.splits if _is_there(task, name)]
    if not existing:
        raise DataError(
            f"no split of {task.card.name} is below {task.root}: put its files there (see the task's README)"
        )
    return existing


def _is_there(task: Task, split: str) -> bool:
    files = task.files(split)
    tables = (name for name, places in files.card.files.items() if places[0].endswith((".json", ".jsonl")))
    return all(files.place(name).exists() for name in tables if name not in files.card.optional)


def _as_object(reports: list[TaskReport]) -> dict[str, object]:
    """The object that `--json` prints: of one task its report, of several the reports below `tasks`."""
    objects = [_task_object(report) for report in reports]
    if len(objects) == 1:
        return objects[0]
    return {"ok": all(report.ok for report in reports), "tasks": {str(report["task"]): report for report in objects}}


def _task_object(report: TaskReport) -> dict[str, object]:
    """One task's counts, and the names of all that splits share, to be removed from one of them."""
    return {
        "task": report.task,
        "ok": report.ok,
        "splits": {split.split: {**asdict(split), "ok": split.ok} for split in report.splits},
        "overlaps": [{**asdict(overlap), **asdict(overlap.shared)} for overlap in report.overlaps],
        "leaks": [asdict(leak) for leak in report.leaks],
    }


def _text(reports: list[TaskReport]) -> str:
    several = len(reports) > 1
    return "\n\n".join((f"{report.task}\n" if several else "") + _task_text(report) for report in reports)


def _task_text(report: TaskReport) -> str:
    from tabulate import tabulate

    rows = [
        {
            "split": split.split,
            "examples": split.examples,
            "expected": split.expected,
            "groups": split.groups,
            "images": split.images,
            "missing": split.missing,
            "undecodable": split.undecodable,
            "md5": _md5(split),
            "verdict": "ok" if split.ok else "WRONG",
        }
        for split in report.splits
    ]
    notes = [f"{split.split}: {text}" for split in report.splits for text in (*split.faults, *split.notes)]
    parts = ["\n".join([tabulate(rows, headers="keys", intfmt=","), *notes])]
    if report.overlaps:
        parts.append(_overlap_text(report.overlaps))
    if report.leaks:
        parts.append(_leak_text(report.leaks))
    return "\n\n".join(parts)


def _overlap_text(overlaps: list[Overlap]) -> str:
    """A table of what splits share, and the first names where they should share nothing."""
    from tabulate import tabulate

    rows = [
        {
            "splits": f"{overlap.split}, {overlap.other}",
            "same examples": len(overlap.shared.examples),
            "same images": len(overlap.shared.pictures),
            "same bytes, other name": _copied(overlap),
            "same id, other example": len(overlap.shared.renamed),
            "verdict": overlap.verdict,
        }
        for overlap in overlaps
    ]
    doubtful = [overlap for overlap in overlaps if overlap.verdict in ("WRONG", "copies")]
    notes = [
        f"{overlap.split}, {overlap.other}: {len(overlap.shared.copied):,} images of {overlap.split} and "
        f"{len(overlap.shared.copied_other):,} of {overlap.other} have the same bytes under another name, in "
        f"{len(overlap.shared.copies):,} pairs"
        for overlap in overlaps
        if overlap.shared.copies
    ]
    notes += [f"{overlap.split}, {overlap.other}: both hold {_first(overlap)}" for overlap in doubtful]
    return "\n".join([tabulate(rows, headers="keys", intfmt=",", disable_numparse=[4]), *notes])


def _copied(overlap: Overlap) -> str:
    """How many images of the first split, and of the other, have the same bytes under another name."""
    first, other = len(overlap.shared.copied), len(overlap.shared.copied_other)
    return f"{first:,}, {other:,}" if first or other else "0"


def _first(overlap: Overlap) -> str:
    named = {"examples": overlap.shared.examples, "images": overlap.shared.pictures, "bytes": overlap.shared.copies}
    return "; ".join(f"the {what} {first_five(names)}" for what, names in named.items() if names)


def _leak_text(leaks: list[FoundLeak]) -> str:
    """A table of images that other tasks train on; numbers of the card are marked as not measured."""
    from tabulate import tabulate

    rows = [
        {
            "split": leak.split,
            "also in": f"{leak.task} {leak.other}",
            "images": _leaked(leak),
            "known from": _source(leak),
        }
        for leak in leaks
    ]
    first = [f"{leak.split}: first {first_five(leak.names)}" for leak in leaks if leak.names]
    lead = "warning: a model that was trained on another task has seen images of these splits"
    return "\n".join([lead, tabulate(rows, headers="keys", disable_numparse=True), *first])


def _leaked(leak: FoundLeak) -> str:
    number = "no number known" if leak.pictures is None else f"{leak.pictures:,}"
    return f"{number} (measured)" if leak.counted else f"not measured; task card: {number}"


def _source(leak: FoundLeak) -> str:
    if leak.counted:
        return leak.source
    return f"task card: {leak.source}{'' if leak.verified else ' (unverified)'}"


def _md5(report: SplitReport) -> str:
    if not report.md5:
        return "none known"
    return "official" if all(file.found == file.expected for file in report.md5) else "differs"
