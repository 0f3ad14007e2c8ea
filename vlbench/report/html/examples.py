"""The examples of one run or two runs for the page's script."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from vlbench.records.attention import Attention
from vlbench.records.samples import SampleRow
from vlbench.report.html.answers import number_or_none
from vlbench.report.html.attention import Letter, Overlays, overlays
from vlbench.report.html.thumbnails import ReportImages, thumbnails
from vlbench.report.show import plain_reference
from vlbench.report.tables.markup import visible

if TYPE_CHECKING:
    import pandas as pd

_LONGEST = 2000
_TOP = 5
_TAG = "tag_"
_PARTS = 60
"""Number of values of a tag up to which it gets a menu; others are found by search."""


@dataclass(frozen=True)
class Menu:
    """Menu of a tag's values to filter by."""

    tag: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Examples:
    """Examples of a page. payload: for the script. attention: the runs with attention. notes: what is left out."""

    payload: Mapping[str, object]
    menus: tuple[Menu, ...]
    probable: bool
    attention: tuple[Letter, ...]
    notes: tuple[str, ...]


def examples(
    rows: pd.DataFrame,
    other: pd.DataFrame | None,
    names: Sequence[str],
    files: ReportImages,
    most: int,
    attention: Sequence[Attention | None],
    *,
    probable: bool,
) -> Examples:
    """Up to `most` examples with thumbnails.

    Args:
        rows: samples of run A without controls.
        other: samples of run B with the same ids; None if there is no run B.
        files: the image files.
        most: maximum number; examples with the lowest hashes of their ids are kept, so that all runs show the same.
        attention: of each run; None if unknown.
        probable: whether confidences are probabilities, shown in percent, or scores as of a ranking.
    """
    kept = chosen(rows, most)
    selected = f"{len(kept):,} of {len(rows):,} examples, selected by a hash of their id"
    notes = [] if len(kept) == len(rows) else [selected]
    shown = _sample_rows(kept)
    of_b = {} if other is None else {row.example_id: row for row in _sample_rows(other)}
    images, missing = _images(shown, of_b, files)
    small = thumbnails(images)
    over = overlays(attention, [row.example_id for row in shown])
    payload = {
        "names": [visible(name) for name in names],
        "probable": probable,
        "rows": [_example(row, of_b.get(row.example_id), over) for row in shown],
        "images": {visible(key): url for key, url in small.urls.items()},
        "boxes": over.boxes,
    }
    remarks = (*notes, *_missing(missing, len(shown), files), *small.notes, *over.notes)
    return Examples(payload, _menus(kept), probable, over.letters, remarks)


def chosen(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` rows, those with the lowest hashes of their ids, in their order."""
    if len(rows) <= most:
        return rows
    hashes = [hashlib.sha256(str(name).encode()).digest() for name in rows["example_id"]]
    return rows.iloc[sorted(sorted(range(len(rows)), key=hashes.__getitem__)[:most])]


def _sample_rows(rows: pd.DataFrame) -> list[SampleRow]:
    """The rows of the table, where a missing number is NaN."""
    known = [field.name for field in fields(SampleRow) if field.name in rows.columns]
    samples = []
    for values in rows.to_dict("records"):
        given = {name: values[name] for name in known}
        given |= {name: () for name in ("labels", "label_scores") if given[name] is None}
        tags = {str(name): value for name, value in values.items() if str(name).startswith(_TAG)}
        named = {name.removeprefix(_TAG): value for name, value in tags.items() if isinstance(value, str)}
        samples.append(SampleRow(**given, tags=named))
    return samples


def _images(
    rows: Sequence[SampleRow], of_b: Mapping[str, SampleRow], files: ReportImages
) -> tuple[dict[str, Path], int]:
    """key -> path of each image that is shown or that is an answer, and the number of examples that lack an image. An
    example's images are taken only where its text is the same here: other data may have the same keys.
    """
    paths: dict[str, Path] = {}
    missing = 0
    for row in rows:
        if files.texts.get(row.example_id) == row.text:
            answers = [side.prediction for side in (row, of_b.get(row.example_id)) if side is not None]
            paths |= {key: files.paths[key] for key in (*row.image_ids, *answers) if key in files.paths}
        missing += any(key not in paths for key in row.image_ids)
    return paths, missing


def _missing(missing: int, total: int, files: ReportImages) -> list[str]:
    if not missing:
        return []
    why = files.absent or "the local data lacks these images, or has other texts under these ids"
    return [f"images of {missing:,} of {total:,} examples are not available: {why}"]


def _menus(rows: pd.DataFrame) -> tuple[Menu, ...]:
    values_by_tag = {
        str(name).removeprefix(_TAG): tuple(sorted({value for value in rows[name] if isinstance(value, str)}))
        for name in rows.columns
        if str(name).startswith(_TAG)
    }
    return tuple(Menu(tag, values) for tag, values in values_by_tag.items() if 1 < len(values) <= _PARTS)


def _example(row: SampleRow, other: SampleRow | None, over: Overlays) -> Mapping[str, object]:
    shown: dict[str, object] = {
        "id": _cut(row.example_id),
        "group": _cut(row.group),
        "text": _cut(row.text),
        "images": [visible(key) for key in row.image_ids],
        "reference": _cut(plain_reference(row.reference)),
        "whole": _cut(row.reference),
        "tags": {visible(name): visible(value) for name, value in row.tags.items()},
        "a": _answer(row, over, "a"),
    }
    return shown if other is None else shown | {"b": _answer(other, over, "b")}


def _answer(row: SampleRow, over: Overlays, letter: Letter) -> Mapping[str, object]:
    pairs = [[_cut(label), number_or_none(score)] for label, score in zip(row.labels, row.label_scores, strict=True)]
    return {
        "answer": _cut(row.prediction),
        "confidence": number_or_none(row.confidence),
        "score": number_or_none(row.score),
        "status": row.status,
        "error": _cut(row.error),
        "written": _cut(row.written),
        "top": pairs[:_TOP],
        "attention": [asdict(heat) for heat in over.heats.get((letter, row.example_id), ())],
    }


def _cut(text: str) -> str:
    over = len(text) - _LONGEST
    return visible(text if over <= 0 else f"{text[:_LONGEST]}… ({over:,} more characters)")
