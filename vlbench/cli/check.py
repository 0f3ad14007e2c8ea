"""`vlbench data check`: what is wrong with data, what splits share, and which pictures other tasks train on."""

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
    """All that was found out about one task."""

    task: str
    splits: list[SplitReport]
    overlaps: list[Overlap]
    leaks: list[FoundLeak]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; a leak between tasks is a warning."""
        return all(split.ok for split in self.splits) and all(one.verdict != "WRONG" for one in self.overlaps)


def check(
    task: Annotated[str, typer.Option(help="Task whose data is meant, or tasks with commas.")],
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data; left out: the built-in world.")] = None,
    tasks_dir: Annotated[Path | None, typer.Option(help="Folder with task folders of your own.")] = None,
    split: Annotated[str | None, typer.Option(help="Splits, comma-separated; left out: those that are there.")] = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Decode and compare every picture.")] = True,
    allow_partial: Annotated[bool, typer.Option("--allow-partial", help="Accept other counts; noted.")] = False,
    verify_data: Annotated[
        bool,
        typer.Option(
            "--verify-data", help="Hash all files of the data, images included; compare with the hashes kept at first."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Count, hash and decode tasks' data, and look for what splits share; exit 5 when something is wrong.

    Examples or pictures of the train split that are also selected or reported on are wrong. Pictures that another task
    trains on are a warning: counted where that task is named too, else as the task's card tells.

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
    from vlbench.data.splits.leaks import leaks
    from vlbench.data.splits.overlap import digests, overlaps
    from vlbench.data.splits.verify import check_split, read_split

    contents: dict[str, list[Contents]] = {}
    splits: dict[str, list[SplitReport]] = {}
    for task in tasks:
        name = task.card.name
        chosen = splits_there(task) if split is None else split_names("split", split)
        contents[name] = [read_split(task, one) for one in chosen]
        splits[name] = [
            check_split(task, one, images, partial(progress.step, f"decoding {one.split}")) for one in contents[name]
        ]
        if verify_data:
            splits[name] = [_verified(task, *pair, progress) for pair in zip(splits[name], contents[name], strict=True)]
    every = [one for found in contents.values() for one in found]
    known = digests(every, partial(progress.step, "comparing pictures")) if images else {}
    cards = {task.card.name: task.card for task in tasks}
    return [
        TaskReport(name, splits[name], overlaps(card, contents[name], known), leaks(task, contents, cards, known))
        for task in tasks
        for name, card in [(task.card.name, task.card)]
    ]


def _verified(task: Task, report: SplitReport, contents: Contents, progress: Progress) -> SplitReport:
    """The report, and whether the split's files are as they were at their first verification."""
    from vlbench.data.splits.verified import verify

    found = verify(task, report.split, contents.images, partial(progress.step, f"verifying {report.split}"))
    if found.fault:
        return replace(report, faults=(*report.faults, found.fault))
    return replace(report, notes=(*report.notes, found.said))


def splits_there(task: Task) -> list[str]:
    """The splits whose tables exist; pictures may be missing, and what the card calls optional.

    Raises:
        DataError: there is none.
    """
    from vlbench.core.errors import DataError

    there = [name for name in task.card.splits if _is_there(task, name)]
    if not there:
        raise DataError(
            f"no split of {task.card.name} is below {task.root}: put its files there (see the task's README)"
        )
    return there


def _is_there(task: Task, split: str) -> bool:
    files = task.files(split)
    tables = (name for name, places in files.card.files.items() if places[0].endswith((".json", ".jsonl")))
    return all(files.place(name).exists() for name in tables if name not in files.card.optional)


def _as_object(reports: list[TaskReport]) -> dict[str, object]:
    """One task as it is; several below `tasks`."""
    objects = [_task_object(report) for report in reports]
    if len(objects) == 1:
        return objects[0]
    return {"ok": all(report.ok for report in reports), "tasks": {str(one["task"]): one for one in objects}}


def _task_object(report: TaskReport) -> dict[str, object]:
    """Counts, and all names of what is shared: a list to take out of one of the splits."""
    return {
        "task": report.task,
        "ok": report.ok,
        "splits": {one.split: {**asdict(one), "ok": one.ok} for one in report.splits},
        "overlaps": [{**asdict(one), **asdict(one.shared)} for one in report.overlaps],
        "leaks": [asdict(one) for one in report.leaks],
    }


def _text(reports: list[TaskReport]) -> str:
    several = len(reports) > 1
    return "\n\n".join((f"{report.task}\n" if several else "") + _task_text(report) for report in reports)


def _task_text(report: TaskReport) -> str:
    from tabulate import tabulate

    rows = [
        {
            "split": one.split,
            "examples": one.examples,
            "expected": one.expected,
            "groups": one.groups,
            "pictures": one.images,
            "missing": one.missing,
            "undecodable": one.undecodable,
            "md5": _md5(one),
            "verdict": "ok" if one.ok else "WRONG",
        }
        for one in report.splits
    ]
    said = [f"{one.split}: {text}" for one in report.splits for text in (*one.faults, *one.notes)]
    parts = ["\n".join([tabulate(rows, headers="keys", intfmt=","), *said])]
    if report.overlaps:
        parts.append(_overlap_text(report.overlaps))
    if report.leaks:
        parts.append(_leak_text(report.leaks))
    return "\n\n".join(parts)


def _overlap_text(overlaps: list[Overlap]) -> str:
    """Which splits share what, and of what should not be so the first names."""
    from tabulate import tabulate

    rows = [
        {
            "splits": f"{one.split}, {one.other}",
            "same examples": len(one.shared.examples),
            "same images": len(one.shared.pictures),
            "same bytes, other name": _copied(one),
            "same id, other example": len(one.shared.renamed),
            "verdict": one.verdict,
        }
        for one in overlaps
    ]
    doubtful = [one for one in overlaps if one.verdict in ("WRONG", "copies")]
    said = [
        f"{one.split}, {one.other}: {len(one.shared.copied):,} images of {one.split} and "
        f"{len(one.shared.copied_other):,} of {one.other} have the same bytes under another name, in "
        f"{len(one.shared.copies):,} pairs"
        for one in overlaps
        if one.shared.copies
    ]
    said += [f"{one.split}, {one.other}: both hold {_first(one)}" for one in doubtful]
    return "\n".join([tabulate(rows, headers="keys", intfmt=",", disable_numparse=[4]), *said])


def _copied(overlap: Overlap) -> str:
    """Different images of the first split and of the other."""
    ours, theirs = len(overlap.shared.copied), len(overlap.shared.copied_other)
    return f"{ours:,}, {theirs:,}" if ours or theirs else "0"


def _first(overlap: Overlap) -> str:
    named = {"examples": overlap.shared.examples, "pictures": overlap.shared.pictures, "bytes": overlap.shared.copies}
    return "; ".join(f"the {what} {first_five(names)}" for what, names in named.items() if names)


def _leak_text(leaks: list[FoundLeak]) -> str:
    """What other tasks train on; a number that is the card's is not shown as one that was measured."""
    from tabulate import tabulate

    rows = [
        {
            "split": one.split,
            "also in": f"{one.task} {one.other}",
            "images": _leaked(one),
            "known from": _source(one),
        }
        for one in leaks
    ]
    said = [f"{one.split}: first {first_five(one.names)}" for one in leaks if one.names]
    lead = "warning: a model that was trained on another task has seen images of these splits"
    return "\n".join([lead, tabulate(rows, headers="keys", disable_numparse=True), *said])


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
