"""`vlbench show`: a run's examples with its answers."""

from __future__ import annotations

import json
import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from vlbench.core.errors import VlbenchError, printable
from vlbench.core.record import RunRecord
from vlbench.records.folder import RunFolder, read_run
from vlbench.records.samples import read_samples
from vlbench.report.tables.results import cell, decoding_text, heading, selection_line

if TYPE_CHECKING:
    import pandas as pd

_HEADERS = ("id", "text", "images", "reference", "prediction")
_WIDTHS = (20, 44, 24, 16, 16)
"""Characters of a column before it wraps."""
_MAIN_FIELDS = ("most", "answer", "image")
"""Fields that alone say what is right in a reference with several fields."""


def show_rows(folder: Path, *, wrong: bool, n: int) -> str:
    """The run's heading and its first n examples; with `wrong`, only those without the full score. n: how many examples
    at most, 1 or more. Raises VlbenchError: no run there, n below 1, or its files are corrupt.
    """
    if n < 1:
        raise VlbenchError(f"-n {n} shows nothing: give 1 or more")
    run = RunFolder.open(folder)
    record = read_run(run.path)
    if record.status != "done" and not run.samples.is_file():
        raise VlbenchError(f"{run.path} holds no samples yet (status {record.status}): finish the run first")
    rows = read_samples(run.samples, controls=False)
    chosen = rows[~(rows["score"] >= 1)] if wrong else rows
    shown = chosen.head(n)
    probable = not run.ranks.is_file() and rows["confidence"].dropna().between(0, 1).all()
    surety = "confidence" if probable else "score"
    kind = "wrong examples" if wrong else "examples"
    count = f"{len(shown):,} of {len(chosen):,} {kind}" + (f" ({len(rows):,} in all)" if wrong else "")
    lines = "\n".join(filter(None, [heading(record), selection_line(record)]))
    parts = [lines, *_asked(record), count, *([_table(shown, surety)] if len(shown) else [])]
    return "\n\n".join(parts)


def _asked(record: RunRecord) -> list[str]:
    """The prompt of one example and the generation settings, if the model was prompted."""
    asked = record.model.prompting
    if asked is None:
        return []
    settings = decoding_text(asked.decoding)
    suffix = f" ({settings})" if settings else ""
    lines = "\n".join(f"  {printable(line)}" for line in asked.prompt.splitlines())
    return [f"prompt of {cell(asked.example)}{printable(suffix)}:\n{lines}"]


def _table(rows: pd.DataFrame, surety: str) -> str:
    columns = ("example_id", "text", "image_ids", "reference", "prediction", "confidence", "status", "error")
    cells = []
    for name, text, images, reference, prediction, confidence, status, error in zip(
        *(rows[column] for column in columns), strict=True
    ):
        answer = prediction if status == "ok" else f"{status}: {error or prediction}"
        texts = [name, text, ", ".join(images), plain_reference(reference), answer]
        # Wrapped here: tabulate's own maxcolwidths casts what it wraps and shows the answer "False" as True.
        wrapped = ["\n".join(textwrap.wrap(cell(text), width)) for text, width in zip(texts, _WIDTHS, strict=True)]
        cells.append([*wrapped, "-" if math.isnan(confidence) else f"{confidence:.3f}"])
    return tabulate(cells, [*_HEADERS, surety], tablefmt="grid", disable_numparse=True)


def plain_reference(reference: str) -> str:
    """A reference without its JSON wrapping if one field says it all: a label, an answer, an image."""
    try:
        values = json.loads(reference)
    except (ValueError, RecursionError):
        return reference  # rows not written by vlbench
    if isinstance(values, dict):
        values = {key: values[key] for key in _MAIN_FIELDS if values.get(key)} or values
    if isinstance(values, dict) and len(values) == 1:
        (only,) = values.values()
        return only if isinstance(only, str) else json.dumps(only, ensure_ascii=False)
    return reference
