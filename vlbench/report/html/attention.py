"""Attention over the images for the page's script: boxes, levels, and the regions with the most attention in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlbench.records.attention import Attended, Attention

Letter = Literal["a", "b"]

BUDGET = 3 << 20
"""Maximum bytes of the attention in a page."""
_LETTERS: tuple[Letter, ...] = ("a", "b")
_LEVELS = "0123456789abcdefghijklmnopqrstuvwxyz"
_GRAIN = 1000
"""Box coordinates are integers in units of 1 / 1000 of an image's side."""
_NAMED = 3
_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")


@dataclass(frozen=True)
class Heat:
    """Attention over one image. boxes: index into the page's list of boxes. levels: one base-36 digit per box; `z` is
    the highest weight. said: the regions with the most attention, in words.
    """

    boxes: int
    levels: str
    said: str


@dataclass(frozen=True)
class Overlays:
    """Attention of a page. heats: (run, example id) -> one for each image. boxes: left, top, width and height in
    thousandths of the image's sides, four numbers per box; images with equal boxes share them. notes: what is missing.
    """

    heats: Mapping[tuple[Letter, str], Sequence[Heat]]
    boxes: Sequence[Sequence[int]]
    notes: tuple[str, ...]

    @property
    def letters(self) -> tuple[Letter, ...]:
        """The runs with attention for an example."""
        return tuple(sorted({letter for letter, _ in self.heats}))


def overlays(sides: Sequence[Attention | None], ids: Sequence[str], budget: int = BUDGET) -> Overlays:
    """The attention of one run or two runs over the images of the examples. sides: of run A, and of run B if there is
    one; None if unknown. ids: of the examples on the page; when the budget is spent, later examples are left out.
    """
    table = _Table()
    heats: dict[tuple[Letter, str], Sequence[Heat]] = {}
    for example_id in ids:
        for letter, side in zip(_LETTERS, sides, strict=False):
            if side is not None and example_id in side.rows and table.spent <= budget:
                heats[letter, example_id] = [table.heat(row) for row in side.rows[example_id]]
    notes = []
    for letter, side in zip(_LETTERS, sides, strict=False):
        run = f" of {letter.upper()}" if len(sides) > 1 else ""
        count = sum(letter == of_run for of_run, _ in heats)
        if side is not None and side.absent:
            notes.append(f"no attention{run}: {side.absent}")
        elif side is not None and count < len(ids):
            notes.append(f"the attention{run} is shown for {count:,} of {len(ids):,} examples")
    return Overlays(heats, table.boxes, tuple(notes))


class _Table:
    """The distinct lists of boxes of a page, and the bytes spent so far."""

    def __init__(self) -> None:
        self.boxes: list[list[int]] = []
        self.spent = 0
        self._known: dict[bytes, int] = {}

    def heat(self, row: Attended) -> Heat:
        """The attention over one image; its boxes are added to the table."""
        weights = row.weights.astype(np.float64)
        shares = weights / (weights.max(initial=0.0) or 1.0)
        levels = "".join(_LEVELS[round(share * (len(_LEVELS) - 1))] for share in shares.tolist())
        heat = Heat(self._number(row.boxes), levels, said(row))
        self.spent += len(json.dumps(asdict(heat)))
        return heat

    def _number(self, boxes: NDArray[np.float32]) -> int:
        corners = np.rint(boxes.clip(0, 1) * _GRAIN).astype(np.int64)
        corners[:, 2:] -= corners[:, :2]
        number = self._known.setdefault(corners.tobytes(), len(self.boxes))
        if number == len(self.boxes):
            self.boxes.append(corners.reshape(-1).tolist())
            self.spent += len(json.dumps(self.boxes[-1]))
        return number


def said(row: Attended) -> str:
    """The ninths of the image with the most attention, by box centres: `top left 61 %, centre 20 %`."""
    shares: dict[str, float] = {}
    for weight, box in zip(row.weights.tolist(), row.boxes.clip(0, 1).tolist(), strict=True):
        name = _ninth((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        shares[name] = shares.get(name, 0.0) + weight
    most = sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))[:_NAMED]
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in most if round(100 * share))


def _ninth(x: float, y: float) -> str:
    row, column = _ROWS[min(2, int(3 * y))], _COLUMNS[min(2, int(3 * x))]
    return f"{row} {column}".strip() or "centre"
