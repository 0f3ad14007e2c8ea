"""The examples of a run, and of another one on the same examples, as the page's script takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlbench.records.attention import Attention
from vlbench.report.html.answers import number_or_none
from vlbench.report.html.attention import Letter, Overlays, overlays
from vlbench.report.html.thumbnails import PictureFiles, thumbnails
from vlbench.report.show import plain_reference
from vlbench.report.tables.markup import visible

if TYPE_CHECKING:
    import pandas as pd

_LONGEST = 2000
_TOP = 5
_TAG = "tag_"
_PARTS = 60
"""More values than these of a tag make no menu; the search finds them."""


@dataclass(frozen=True)
class Menu:
    """A tag and its values, to filter by."""

    tag: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Examples:
    """What is shown of a run's examples. payload: for the script. attention: which of the
    runs tell what they attend to. notes: what is left out, and why."""

    payload: dict[str, Any]
    menus: tuple[Menu, ...]
    probable: bool
    attention: tuple[Letter, ...]
    notes: tuple[str, ...]


def examples(
    rows: pd.DataFrame,
    other: pd.DataFrame | None,
    names: Sequence[str],
    files: PictureFiles,
    most: int,
    attention: Sequence[Attention | None],
    *,
    probable: bool,
) -> Examples:
    """Up to `most` examples with thumbnails.

    Args:
        rows: samples of run A, controls left out.
        other: those of run B, which has the same ids; None for no such run.
        names: of both runs.
        files: where the pictures are.
        most: how many; where there are more, those whose ids hash lowest, so that any run shows the same.
        attention: of each run, where it is known.
        probable: whether confidences are probabilities, shown in percent, or scores as of a ranking.
    """
    kept = chosen(rows, most)
    notes = [] if len(kept) == len(rows) else [f"{len(kept):,} of {len(rows):,} examples, drawn by a hash of their id"]
    records = _records(kept)
    of_b = {} if other is None else {row["example_id"]: row for row in _records(other)}
    pictures, missing = _pictures(records, of_b, files)
    small = thumbnails(pictures)
    over = overlays(attention, [row["example_id"] for row in records])
    payload = {
        "names": [visible(name) for name in names],
        "probable": probable,
        "rows": [_example(row, of_b.get(row["example_id"]), over) for row in records],
        "pictures": {visible(key): address for key, address in small.found.items()},
        "boxes": over.boxes,
    }
    remarks = (*notes, *_missing(missing, len(records), files), *small.notes, *over.notes)
    return Examples(payload, _menus(kept), probable, over.letters, remarks)


def chosen(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """Of the rows those that are shown: where there are more than `most`, those whose ids hash lowest."""
    if len(rows) <= most:
        return rows
    order = sorted(
        range(len(rows)), key=lambda row: hashlib.sha256(str(rows["example_id"].iloc[row]).encode()).digest()
    )
    return rows.iloc[sorted(order[:most])]


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def _pictures(
    records: Sequence[Mapping[str, Any]], of_b: Mapping[str, Mapping[str, Any]], files: PictureFiles
) -> tuple[dict[str, Path], int]:
    """key -> file of what is shown or was answered with, and of how many examples no picture is at hand.

    The files are taken only where they have the example with the same text: other data may have the same keys.
    """
    found: dict[str, Path] = {}
    missing = 0
    for row in records:
        if files.texts.get(row["example_id"]) == row["text"]:
            answers = [of["prediction"] for of in (row, of_b.get(row["example_id"])) if of is not None]
            found |= {key: files.paths[key] for key in (*row["image_ids"], *answers) if key in files.paths}
        missing += any(key not in found for key in row["image_ids"])
    return found, missing


def _missing(missing: int, total: int, files: PictureFiles) -> list[str]:
    if not missing:
        return []
    why = files.absent or "the data at hand has no such pictures, or other texts under these ids"
    return [f"pictures of {missing:,} of {total:,} examples are not at hand: {why}"]


def _menus(rows: pd.DataFrame) -> tuple[Menu, ...]:
    found = {
        str(name).removeprefix(_TAG): tuple(sorted({value for value in rows[name] if isinstance(value, str)}))
        for name in rows.columns
        if str(name).startswith(_TAG)
    }
    return tuple(Menu(tag, values) for tag, values in found.items() if 1 < len(values) <= _PARTS)


def _example(row: Mapping[str, Any], other: Mapping[str, Any] | None, over: Overlays) -> dict[str, Any]:
    shown = {
        "id": _cut(row["example_id"]),
        "group": _cut(row["group"]),
        "text": _cut(row["text"]),
        "images": [visible(key) for key in row["image_ids"]],
        "reference": _cut(plain_reference(row["reference"])),
        "whole": _cut(row["reference"]),
        "tags": {
            visible(name.removeprefix(_TAG)): visible(value)
            for name, value in row.items()
            if name.startswith(_TAG) and isinstance(value, str)
        },
        "a": _answer(row, over, "a"),
    }
    return shown if other is None else shown | {"b": _answer(other, over, "b")}


def _answer(row: Mapping[str, Any], over: Overlays, letter: Letter) -> dict[str, Any]:
    labels = [] if row["labels"] is None else row["labels"]
    scores = [] if row["label_scores"] is None else row["label_scores"]
    pairs = [[_cut(label), number_or_none(score)] for label, score in zip(labels, scores, strict=True)]
    return {
        "answer": _cut(row["prediction"]),
        "confidence": number_or_none(row["confidence"]),
        "score": number_or_none(row["score"]),
        "status": row["status"],
        "error": _cut(row["error"]),
        "written": _cut(row["written"]),
        "top": pairs[:_TOP],
        "attention": [asdict(heat) for heat in over.heats.get((letter, row["example_id"]), ())],
    }


def _cut(text: str) -> str:
    over = len(text) - _LONGEST
    return visible(text if over <= 0 else f"{text[:_LONGEST]}… ({over:,} more characters)")
