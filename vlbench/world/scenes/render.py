"""Render a scene to pixels with integer arithmetic only, in one of two domains.

plain: things of one flat colour on a flat light background. textured: other tones of the same colours on a woven,
unevenly lit background with specks and hairs, some of them across things, so that a detector makes errors.
"""

from __future__ import annotations

from functools import lru_cache
from random import Random
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlbench.core.domain import Domain
from vlbench.world.rng import below, stream
from vlbench.world.scenes.scene import SIDE, Colour, Scene, Shape

RGB: TypeAlias = tuple[int, int, int]
Canvas: TypeAlias = NDArray[np.int64]

PALETTES: dict[Domain, dict[Colour, RGB]] = {
    "plain": {"red": (214, 44, 40), "green": (46, 160, 67), "blue": (38, 92, 210), "yellow": (242, 200, 32)},
    "textured": {"red": (150, 52, 70), "green": (74, 118, 62), "blue": (70, 92, 148), "yellow": (196, 150, 60)},
}
_BACKGROUNDS: dict[Domain, RGB] = {"plain": (240, 240, 240), "textured": (176, 168, 156)}
_VARIATION = 12
_TILE, _WEAVE, _RAMP = 8, 5, 8


def render_scene(scene: Scene, domain: Domain, seed: int) -> NDArray[np.uint8]:
    """The RGB image [48, 48, 3] of a scene; the same in every task that shows it."""
    rng = stream(seed, "draw", domain, scene.id)
    canvas = np.empty((SIDE, SIDE, 3), np.int64)
    canvas[:] = _tint(rng, _BACKGROUNDS[domain])
    if domain == "textured":
        _scatter_specks(canvas, rng)
        _scatter_hairs(canvas, rng, 1 + below(rng, 3))
    for thing in scene.things:
        x1, y1, x2, y2 = thing.box
        canvas[y1:y2, x1:x2][shape_mask(thing.shape, x2 - x1)] = _tint(rng, PALETTES[domain][thing.colour])
    if domain == "textured":
        _scatter_hairs(canvas, rng, 1 + below(rng, 3))
        canvas += _weave(rng)[..., None]
    return canvas.clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=64)
def shape_mask(shape: Shape, side: int) -> NDArray[np.bool_]:
    """The boolean mask [side, side] of a shape that touches all four sides of its box."""
    y, x = np.mgrid[:side, :side]
    match shape:
        case "square":
            return np.ones((side, side), dtype=bool)
        case "circle":
            return (2 * x - side + 1) ** 2 + (2 * y - side + 1) ** 2 <= side * side  # type: ignore[no-any-return]
        case "triangle":
            return np.abs(2 * x - side + 1) <= y + 1  # type: ignore[no-any-return]


def _tint(rng: Random, colour: RGB) -> RGB:
    """The colour with each channel changed at random by at most `_VARIATION`."""
    red, green, blue = (channel + below(rng, 2 * _VARIATION + 1) - _VARIATION for channel in colour)
    return red, green, blue


def _scatter_specks(canvas: Canvas, rng: Random) -> None:
    """Draw dots of one or two pixels, too small to be a thing."""
    for _ in range(10):
        x, y = below(rng, SIDE), below(rng, SIDE)
        canvas[y, x : x + 1 + below(rng, 2)] = below(rng, 120)


def _scatter_hairs(canvas: Canvas, rng: Random, count: int) -> None:
    """Draw straight lines one pixel wide, at most a third of the image long."""
    for _ in range(count):
        x, y, length, tone = below(rng, SIDE), below(rng, SIDE), 6 + below(rng, 11), 20 + below(rng, 80)
        if below(rng, 2):
            canvas[y, x : x + length] = tone
        else:
            canvas[y : y + length, x] = tone


def _weave(rng: Random) -> Canvas:
    """The values [48, 48] that texture and uneven light add to each pixel."""
    tile = np.array([below(rng, 2 * _WEAVE + 1) - _WEAVE for _ in range(_TILE * _TILE)], dtype=np.int64)
    ramp = np.arange(SIDE) * 2 * _RAMP // SIDE - _RAMP
    lit = ramp[:, None] if below(rng, 2) else ramp[None, :]
    return np.tile(tile.reshape(_TILE, _TILE), (SIDE // _TILE, SIDE // _TILE)) + (lit if below(rng, 2) else -lit)
