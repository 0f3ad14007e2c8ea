"""Captions of a scene, as five people would write them, and the claims they make, which a solver can check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from vlbench.world.language.phrases import DIRECTIONS_SAID, NUMBERS
from vlbench.world.language.statements import DIRECTIONS, Look
from vlbench.world.rng import below, pick, shuffled
from vlbench.world.scenes.scene import Direction, Scene, Thing

PER_SCENE = 5

LISTS = (
    "{}",
    "{} in a picture",
    "{} can be seen here",
    "a picture of {}",
    "the image shows {}",
    "this photo contains {}",
)
RELATIONS = (
    "{a} {where} {b}",
    "{a} is {where} {b}",
    "there is {a} {where} {b}",
    "a picture of {a} {where} {b}",
    "{a} stands {where} {b}",
    "this image shows {a} {where} {b}",
)
WITH_REST = ("{} with {}", "{}, and also {}", "{} together with {}", "{} and {}")


@dataclass(frozen=True, slots=True)
class Claims:
    """What a caption says. counts: exactly so many things of a look. relations: some thing of a look stands in that
    direction from some thing of another."""

    counts: tuple[tuple[Look, int], ...] = ()
    relations: tuple[tuple[Look, Direction, Look], ...] = ()

    def fit(self, scene: Scene) -> bool:
        """Whether all of it is true of the scene."""
        return all(len(look.among(scene)) == number for look, number in self.counts) and all(
            any(one.stands(direction, other) for one in first.among(scene) for other in second.among(scene))
            for first, direction, second in self.relations
        )


def captions(scene: Scene, rng: Random) -> list[tuple[Claims, str]]:
    """Five captions, each true, the first of which names every thing with all that can be seen of it."""
    pair = _pair(scene, rng)
    told = [
        _listed(scene.things, rng, with_size=True),
        _listed(scene.things, rng, with_size=False),
        _related(*pair, rng),
        _related_with_rest(scene, *pair, rng),
        _related(*_pair(scene, rng), rng),
    ]
    return [(claims, _sentence(words, rng)) for claims, words in told]


def _listed(things: Sequence[Thing], rng: Random, *, with_size: bool) -> tuple[Claims, str]:
    counts = _counts(things, with_size)
    return Claims(counts=counts), pick(rng, LISTS).format(_joined(_counted(look, number) for look, number in counts))


def _related(first: Thing, direction: Direction, second: Thing, rng: Random) -> tuple[Claims, str]:
    one, other = _look(first, below(rng, 2) == 0), _look(second, below(rng, 2) == 0)
    where = pick(rng, DIRECTIONS_SAID[direction])
    words = pick(rng, RELATIONS).format(a=_counted(one, 1), where=where, b=_counted(other, 1))
    return Claims(relations=((one, direction, other),)), words


def _related_with_rest(
    scene: Scene, first: Thing, direction: Direction, second: Thing, rng: Random
) -> tuple[Claims, str]:
    """Two things and how they stand; then, of the looks that neither of them has, how many there are."""
    claims, words = _related(first, direction, second, rng)
    ((one, _, other),) = claims.relations
    rest = [thing for thing in scene.things if not one.fits(thing) and not other.fits(thing)]
    counts = tuple(
        (look, number) for look, number in _counts(rest, with_size=False) if len(look.among(scene)) == number
    )[:2]
    if not counts:
        return claims, words
    listed = _joined(_counted(look, number) for look, number in counts)
    return Claims(counts, claims.relations), pick(rng, WITH_REST).format(words, listed)


def _pair(scene: Scene, rng: Random) -> tuple[Thing, Direction, Thing]:
    """Two things and a direction in which the first stands from the second."""
    first, second = shuffled(rng, scene.things)[:2]
    return first, next(way for way in shuffled(rng, DIRECTIONS) if first.stands(way, second)), second


def _counts(things: Iterable[Thing], with_size: bool) -> tuple[tuple[Look, int], ...]:
    return tuple(Counter(_look(thing, with_size) for thing in things).items())


def _look(thing: Thing, with_size: bool) -> Look:
    return Look(thing.size if with_size else None, thing.colour, thing.shape)


def _counted(look: Look, number: int) -> str:
    """ "a big red circle" or "two red circles"."""
    name = " ".join(word for word in (look.size, look.colour, look.shape) if word)
    return f"a {name}" if number == 1 else f"{NUMBERS[number]} {name}s"


def _joined(parts: Iterable[str]) -> str:
    *before, last = parts
    return f"{', '.join(before)} and {last}" if before else last


def _sentence(words: str, rng: Random) -> str:
    """As people write: mostly with a capital and a full stop, which official captions often set apart by a space."""
    return (words[0].upper() + words[1:] if below(rng, 4) else words) + pick(rng, (".", " .", ".", ""))
