"""Scenes of coloured shapes with a true scene graph; all tasks of the synthetic world are about these scenes.

An image has 48x48 pixels: a 3x3 grid of cells of 16 pixels, at most one object per cell, at least one pixel of
background around each object, so that an object is a connected component.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal, TypeAlias, get_args

from vlbench.world.output import write_text
from vlbench.world.rng import Item, below, pick, shuffled, stream

Shape = Literal["circle", "square", "triangle"]
Colour = Literal["red", "green", "blue", "yellow"]
Size = Literal["small", "big"]
Split = Literal["train", "dev", "test1", "test2"]
Direction = Literal["left", "right", "above", "below"]

SHAPES: tuple[Shape, ...] = get_args(Shape)
COLOURS: tuple[Colour, ...] = get_args(Colour)
SIZES: tuple[Size, ...] = get_args(Size)
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
SPLITS: tuple[Split, ...] = get_args(Split)
"""Named after NLVR2's files: test1 is test-p, test2 is test-u."""

GRID, CELL = 3, 16
SIDE = GRID * CELL
EXTENTS: dict[Size, tuple[int, ...]] = {"small": (7, 8), "big": (12, 13)}
"""The possible sides of an object's box, in pixels."""

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
        """Whether this is left of (right of, above, below) the other thing, by column or row of its cell."""
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
        """What the scene shows, without jitter and id: equal for scenes that no statement can distinguish."""
        return ";".join(f"{t.size} {t.colour} {t.shape} {t.cell[0]}{t.cell[1]}" for t in self.things)

    def split(self) -> Split:
        """The split this content belongs to: by its hash, so the same for every seed, size and domain."""
        return _SHARES[hashlib.sha256(self.content().encode()).digest()[0] % len(_SHARES)]


Scenes: TypeAlias = Mapping[Split, Sequence[Scene]]


def make_scenes(split: Split, count: int, seed: int) -> list[Scene]:
    """`count` scenes of a split, all with different content. The first n are the same for any count >= n."""
    rng = stream(seed, "scenes", split)
    scenes: list[Scene] = []
    contents: set[str] = set()
    while len(scenes) < count:
        scene = Scene(f"{split}-{len(scenes)}", _draw_things(rng))
        content = scene.content()
        if content not in contents and scene.split() == split:
            contents.add(content)
            scenes.append(scene)
    return scenes


def _draw_things(rng: Random) -> tuple[Thing, ...]:
    """Two to six things that share one or two shapes, colours and sizes, so that a scene often lacks a given one."""
    shapes, colours, sizes = _some(rng, SHAPES), _some(rng, COLOURS), _some(rng, SIZES)
    cells = [(row, column) for row in range(GRID) for column in range(GRID)]
    return tuple(
        _place(rng, pick(rng, shapes), pick(rng, colours), pick(rng, sizes), cell)
        for cell in sorted(shuffled(rng, cells)[: 2 + below(rng, 5)])
    )


def _some(rng: Random, items: Sequence[Item]) -> list[Item]:
    """One or two of the items, with equal probability."""
    return shuffled(rng, items)[: 1 + below(rng, 2)]


def _place(rng: Random, shape: Shape, colour: Colour, size: Size, cell: tuple[int, int]) -> Thing:
    """A thing at a random place in its cell, at least one pixel from the cell's edge."""
    extent = pick(rng, EXTENTS[size])
    slack = min(CELL - 2 - extent, 4)
    margin = (CELL - extent - slack) // 2
    top = cell[0] * CELL + margin + below(rng, slack + 1)
    left = cell[1] * CELL + margin + below(rng, slack + 1)
    return Thing(shape, colour, size, cell, (left, top, left + extent, top + extent))


def write_scenes(path: Path, scenes: Sequence[Scene]) -> None:
    """Write one scene graph per line, as JSON."""
    write_text(path, "".join(json.dumps(scene, default=_fields) + "\n" for scene in scenes))


def _fields(value: Scene | Thing) -> dict[str, object]:
    return {name: getattr(value, name) for name in value.__slots__}
