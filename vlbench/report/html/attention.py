"""Attention over the pictures as the page's script takes it: boxes, levels, and in words where most of it lies."""

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
"""Bytes that the attention of a page may take."""
_LETTERS: tuple[Letter, ...] = ("a", "b")
_LEVELS = "0123456789abcdefghijklmnopqrstuvwxyz"
_GRAIN = 1000
"""Boxes are whole numbers of this part of a picture's side."""
_NAMED = 3
_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")


@dataclass(frozen=True)
class Heat:
    """Over one picture. boxes: their place in the page's table. levels: one digit to the base 36 for each box, of which
    `z` is the highest weight. said: where most of the attention lies."""

    boxes: int
    levels: str
    said: str


@dataclass(frozen=True)
class Overlays:
    """heats: by run and example id, one for each picture. boxes: left, top, width and height in thousandths of the
    picture's sides, four numbers for each box; pictures with the same ones share them. notes: what is missing, and why.
    """

    heats: Mapping[tuple[Letter, str], Sequence[Heat]]
    boxes: Sequence[Sequence[int]]
    notes: tuple[str, ...]

    @property
    def letters(self) -> tuple[Letter, ...]:
        """The runs that tell of an example."""
        return tuple(sorted({letter for letter, _ in self.heats}))


def overlays(sides: Sequence[Attention | None], ids: Sequence[str], budget: int = BUDGET) -> Overlays:
    """The attention of one run, or of two, over the pictures of the examples.

    Args:
        sides: of run A and perhaps of run B; None where nothing is known.
        ids: of the examples on the page; where the budget is spent, the later ones are left out.
        budget: bytes.
    """
    table = _Table()
    heats: dict[tuple[Letter, str], Sequence[Heat]] = {}
    for example_id in ids:
        for letter, side in zip(_LETTERS, sides, strict=False):
            if side is not None and example_id in side.rows and table.spent <= budget:
                heats[letter, example_id] = [table.heat(row) for row in side.rows[example_id]]
    notes = []
    for letter, side in zip(_LETTERS, sides, strict=False):
        of = f" of {letter.upper()}" if len(sides) > 1 else ""
        count = sum(letter == of_run for of_run, _ in heats)
        if side is not None and side.absent:
            notes.append(f"no attention{of}: {side.absent}")
        elif side is not None and count < len(ids):
            notes.append(f"the attention{of} is shown for {count:,} of {len(ids):,} examples")
    return Overlays(heats, table.boxes, tuple(notes))


class _Table:
    """The boxes of the page, each list of them once, and the bytes spent so far."""

    def __init__(self) -> None:
        self.boxes: list[list[int]] = []
        self.spent = 0
        self._known: dict[bytes, int] = {}

    def heat(self, row: Attended) -> Heat:
        """An example's picture, its boxes put into the table."""
        weights = row.weights.astype(np.float64)
        shares = weights / (weights.max(initial=0.0) or 1.0)
        levels = "".join(_LEVELS[round(share * (len(_LEVELS) - 1))] for share in shares.tolist())
        made = Heat(self._number(row.boxes), levels, said(row))
        self.spent += len(json.dumps(asdict(made)))
        return made

    def _number(self, boxes: NDArray[np.float32]) -> int:
        corners = np.rint(boxes.clip(0, 1) * _GRAIN).astype(np.int64)
        corners[:, 2:] -= corners[:, :2]
        number = self._known.setdefault(corners.tobytes(), len(self.boxes))
        if number == len(self.boxes):
            self.boxes.append(corners.reshape(-1).tolist())
            self.spent += len(json.dumps(self.boxes[-1]))
        return number


def said(row: Attended) -> str:
    """The ninths of the picture with the most attention, by the middles of boxes: `top left 61 %, centre 20 %`."""
    shares: dict[str, float] = {}
    for weight, box in zip(row.weights.tolist(), row.boxes.clip(0, 1).tolist(), strict=True):
        name = _ninth((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        shares[name] = shares.get(name, 0.0) + weight
    most = sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))[:_NAMED]
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in most if round(100 * share))


def _ninth(x: float, y: float) -> str:
    row, column = _ROWS[min(2, int(3 * y))], _COLUMNS[min(2, int(3 * x))]
    return f"{row} {column}".strip() or "centre"
