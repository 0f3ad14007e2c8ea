"""Scenes of coloured shapes with a true scene graph; every task and exporter of the world looks at these.

A picture has 48x48 pixels: a 3x3 grid of cells of 16 pixels, at most one object in a cell, at least one pixel
of background around each, so that an object is a connected component.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Literal, get_args

from vlbench.world.rng import Item, below, pick, shuffled, stream

Shape = Literal["circle", "square", "triangle"]
Colour = Literal["red", "green", "blue", "yellow"]
Size = Literal["small", "big"]
Split = Literal["train", "dev", "test1", "test2"]
Direction = Literal["left", "right", "above", "below"]

SHAPES: tuple[Shape, ...] = get_args(Shape)
COLOURS: tuple[Colour, ...] = get_args(Colour)
SIZES: tuple[Size, ...] = get_args(Size)
SPLITS: tuple[Split, ...] = get_args(Split)
"""The official file names' words: test1 is test-p, test2 is test-u."""

GRID, CELL = 3, 16
SIDE = GRID * CELL
EXTENTS: dict[Size, tuple[int, ...]] = {"small": (7, 8), "big": (12, 13)}
"""The side of an object's box in pixels."""

_SHARES: tuple[Split, ...] = ("train",) * 8 + ("dev",) + ("test1",) * 5 + ("test2",) * 2


@dataclass(frozen=True, slots=True)
class Thing:
    """An object. cell: (row, column) in 0..2. box: x1, y1, x2, y2 in pixels, x2 and y2 exclusive."""

    shape: Shape
    colour: Colour
    size: Size
    cell: tuple[int, int]
    box: tuple[int, int, int, int]

    def stands(self, direction: Direction, other: Thing) -> bool:
        """Whether this stands to the left of (right of, above, below) the other, row and column by cells."""
        (row, column), (other_row, other_column) = self.cell, other.cell
        match direction:
            case "left":
                return column < other_column
            case "right":
                return column > other_column
            case "above":
                return row < other_row
            case "below":
                return row > other_row


@dataclass(frozen=True, slots=True)
class Scene:
    """Two to six things, in reading order of their cells."""

    id: str
    things: tuple[Thing, ...]

    def content(self) -> str:
        """What the scene shows, jitter and id apart: equal for scenes that no statement tells apart."""
        return ";".join(f"{t.size} {t.colour} {t.shape} {t.cell[0]}{t.cell[1]}" for t in self.things)

    def split(self) -> Split:
        """The split that owns this content: by hash, so the same in every world of any seed, size and domain."""
        return _SHARES[hashlib.sha256(self.content().encode()).digest()[0] % len(_SHARES)]


def make_scenes(split: Split, count: int, seed: int) -> list[Scene]:
    """`count` scenes of a split, no two with the same content. The first n are the same for any count >= n."""
    rng = stream(seed, "scenes", split)
    scenes: list[Scene] = []
    seen: set[str] = set()
    while len(scenes) < count:
        scene = Scene(f"{split}-{len(scenes)}", _draw_things(rng))
        content = scene.content()
        if content not in seen and scene.split() == split:
            seen.add(content)
            scenes.append(scene)
    return scenes


def _draw_things(rng: Random) -> tuple[Thing, ...]:
    """Things that share what they may look like, so that a colour or a shape is missing as often as not."""
    shapes, colours, sizes = _some(rng, SHAPES), _some(rng, COLOURS), _some(rng, SIZES)
    cells = [(row, column) for row in range(GRID) for column in range(GRID)]
    return tuple(
        _place(rng, pick(rng, shapes), pick(rng, colours), pick(rng, sizes), cell)
        for cell in sorted(shuffled(rng, cells)[: 2 + below(rng, 5)])
    )


def _some(rng: Random, items: Sequence[Item]) -> list[Item]:
    """One or two of the items, one as likely as two."""
    return shuffled(rng, items)[: 1 + below(rng, 2)]


def _place(rng: Random, shape: Shape, colour: Colour, size: Size, cell: tuple[int, int]) -> Thing:
    """Put a thing somewhere in its cell, at least one pixel from the cell's edge."""
    extent = pick(rng, EXTENTS[size])
    slack = min(CELL - 2 - extent, 4)
    margin = (CELL - extent - slack) // 2
    top = cell[0] * CELL + margin + below(rng, slack + 1)
    left = cell[1] * CELL + margin + below(rng, slack + 1)
    return Thing(shape, colour, size, cell, (left, top, left + extent, top + extent))


def write_scenes(path: Path, scenes: list[Scene]) -> None:
    """One scene graph per line, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(asdict(scene)) + "\n" for scene in scenes), encoding="utf-8", newline="\n")


def read_scenes(path: Path) -> Iterator[Scene]:
    """The scenes of a file of `write_scenes`, in its order."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield Scene(row["id"], tuple(_thing(**thing) for thing in row["things"]))


def _thing(shape: Shape, colour: Colour, size: Size, cell: list[int], box: list[int]) -> Thing:
    return Thing(shape, colour, size, (cell[0], cell[1]), (box[0], box[1], box[2], box[3]))
