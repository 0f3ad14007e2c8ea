"""`vlbench data check`: verify counts, checksums, images and split overlap, and images that other tasks train on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from vlbench.cli.options import AllowPartial, AsJson, DataRoot, TasksDir
from vlbench.cli.spec import split_names
from vlbench.core.errors import DataError, ExitCode, first_five

if TYPE_CHECKING:
    from vlbench.core.progress import Progress
    from vlbench.core.task import Task
    from vlbench.data.splits.leaks import FoundLeak
    from vlbench.data.splits.overlap import Contents, Overlap
    from vlbench.data.splits.verify import SplitReport

VerifyData = Annotated[bool, typer.Option("--verify-data",
    help="Hash all data files, images included; compare with the hashes of the first verification.")]  # fmt: skip


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
    data_root: DataRoot = None,
    tasks_dir: TasksDir = None,
    split: Annotated[str | None, typer.Option(help="Splits, with commas; left out: all that exist.")] = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Decode and compare every image.")] = True,
    allow_partial: AllowPartial = False,
    verify_data: VerifyData = False,
    as_json: AsJson = False,
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
        for task, (name, card) in zip(tasks, cards.items(), strict=True)
    ]


def _verified(task: Task, report: SplitReport, contents: Contents, progress: Progress) -> SplitReport:
    """The report, extended by whether the split's files are the same as at their first verification."""
    from vlbench.data.splits.verified import verify

    result = verify(task, report.split, contents.images, partial(progress.step, f"verifying {report.split}"))
    if result.fault:
        return replace(report, faults=(*report.faults, result.fault))
    return replace(report, notes=(*report.notes, result.said))


def splits_there(task: Task) -> list[str]:
    """The splits whose annotation files exist, images and optional files aside; raises DataError if there is none."""
    existing = []
    for name in task.card.splits:
        files = task.files(name)
        tables = (key for key, places in files.card.files.items() if places[0].endswith((".json", ".jsonl")))
        if all(files.place(key).exists() for key in tables if key not in files.card.optional):
            existing.append(name)
    if not existing:
        raise DataError(
            f"no split of {task.card.name} is below {task.root}: put its files there (see the task's README)"
        )
    return existing


def _as_object(reports: list[TaskReport]) -> dict[str, object]:
    """The object that `--json` prints: of one task its report, of several the reports below `tasks`.

    A report names all that splits share, to be removed from one of them.
    """
    objects: dict[str, dict[str, object]] = {
        report.task: {
            "task": report.task,
            "ok": report.ok,
            "splits": {split.split: {**asdict(split), "ok": split.ok} for split in report.splits},
            "overlaps": [{**asdict(overlap), **asdict(overlap.shared)} for overlap in report.overlaps],
            "leaks": [asdict(leak) for leak in report.leaks],
        }
        for report in reports
    }
    if len(reports) == 1:
        return objects[reports[0].task]
    return {"ok": all(report.ok for report in reports), "tasks": objects}


def _text(reports: list[TaskReport]) -> str:
    heads = [f"{report.task}\n" if len(reports) > 1 else "" for report in reports]
    return "\n\n".join(head + _task_text(report) for head, report in zip(heads, reports, strict=True))


def _task_text(report: TaskReport) -> str:
    from tabulate import tabulate

    headers = ("split", "examples", "expected", "groups", "images", "missing", "undecodable", "md5", "verdict")
    rows = [
        (split.split, split.examples, split.expected, split.groups, split.images, split.missing, split.undecodable,
         _md5(split), "ok" if split.ok else "WRONG")
        for split in report.splits
    ]  # fmt: skip
    notes = [f"{split.split}: {text}" for split in report.splits for text in (*split.faults, *split.notes)]
    parts = ["\n".join([tabulate(rows, headers, intfmt=","), *notes])]
    if report.overlaps:
        parts.append(_overlap_text(report.overlaps))
    if report.leaks:
        parts.append(_leak_text(report.leaks))
    return "\n\n".join(parts)


def _overlap_text(overlaps: list[Overlap]) -> str:
    """A table of what splits share, and the first names where they should share nothing."""
    from tabulate import tabulate

    rows, copies, both = [], [], []
    for overlap in overlaps:
        shared, splits = overlap.shared, f"{overlap.split}, {overlap.other}"
        first, other = len(shared.copied), len(shared.copied_other)
        copied = f"{first:,}, {other:,}" if first or other else "0"
        counts = (len(shared.examples), len(shared.pictures), copied, len(shared.renamed))
        rows.append((splits, *counts, overlap.verdict))
        if shared.copies:
            copies.append(
                f"{splits}: {first:,} images of {overlap.split} and {other:,} of {overlap.other} have the same bytes "
                f"under another name, in {len(shared.copies):,} pairs"
            )
        if overlap.verdict in ("WRONG", "copies"):
            named = {"examples": shared.examples, "images": shared.pictures, "bytes": shared.copies}
            names = "; ".join(f"the {what} {first_five(names)}" for what, names in named.items() if names)
            both.append(f"{splits}: both hold {names}")
    headers = ("splits", "same examples", "same images", "same bytes, other name", "same id, other example", "verdict")
    return "\n".join([tabulate(rows, headers, intfmt=",", disable_numparse=[4]), *copies, *both])


def _leak_text(leaks: list[FoundLeak]) -> str:
    """A table of images that other tasks train on; numbers of the card are marked as not measured."""
    from tabulate import tabulate

    rows = []
    for leak in leaks:
        number = "no number known" if leak.pictures is None else f"{leak.pictures:,}"
        images, source = f"{number} (measured)", leak.source
        if not leak.counted:
            images = f"not measured; task card: {number}"
            source = f"task card: {leak.source}{'' if leak.verified else ' (unverified)'}"
        rows.append((leak.split, f"{leak.task} {leak.other}", images, source))
    first = [f"{leak.split}: first {first_five(leak.names)}" for leak in leaks if leak.names]
    lead = "warning: a model that was trained on another task has seen images of these splits"
    return "\n".join(
        [lead, tabulate(rows, ("split", "also in", "images", "known from"), disable_numparse=True), *first]
    )


def _md5(report: SplitReport) -> str:
    if not report.md5:
        return "none known"
    return "official" if all(file.found == file.expected for file in report.md5) else "differs"
