"""Five captions of a scene, and the claims they make, which a solver can check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from vlbench.world.language.phrases import DIRECTION_WORDINGS, NUMBERS
from vlbench.world.language.statements import Look
from vlbench.world.rng import below, pick, shuffled
from vlbench.world.scenes.scene import DIRECTIONS, Direction, Scene, Thing

PER_SCENE = 5

LISTS = (
    "{}", "{} in a picture", "{} can be seen here", "a picture of {}", "the image shows {}",
    "this photo contains {}",
)  # fmt: skip
RELATIONS = (
    "{a} {where} {b}", "{a} is {where} {b}", "there is {a} {where} {b}", "a picture of {a} {where} {b}",
    "{a} stands {where} {b}", "this image shows {a} {where} {b}",
)  # fmt: skip
WITH_REST = ("{} with {}", "{}, and also {}", "{} together with {}", "{} and {}")


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a caption.

    counts: a look, and the exact number of things that have it. relations: some thing of the first look is in that
    direction from some thing of the second.
    """

    counts: tuple[tuple[Look, int], ...] = ()
    relations: tuple[tuple[Look, Direction, Look], ...] = ()

    def fit(self, scene: Scene) -> bool:
        """Whether all claims are true of the scene."""
        return all(len(look.among(scene)) == number for look, number in self.counts) and all(
            any(thing.stands(direction, other) for thing in first.among(scene) for other in second.among(scene))
            for first, direction, second in self.relations
        )


def caption_scene(scene: Scene, rng: Random) -> list[tuple[Claims, str]]:
    """Five true captions with their claims; the first names every thing with all its attributes."""
    pair = _pair(scene, rng)
    captions = [
        _listed(scene.things, rng, with_size=True),
        _listed(scene.things, rng, with_size=False),
        _related(*pair, rng),
        _related_with_rest(scene, *pair, rng),
        _related(*_pair(scene, rng), rng),
    ]
    return [(claims, _sentence(words, rng)) for claims, words in captions]


def _listed(things: Sequence[Thing], rng: Random, *, with_size: bool) -> tuple[Claims, str]:
    counts = _counts(things, with_size)
    return Claims(counts=counts), pick(rng, LISTS).format(
        _joined(_with_number(look, number) for look, number in counts)
    )


def _related(first: Thing, direction: Direction, second: Thing, rng: Random) -> tuple[Claims, str]:
    look, other_look = _look(first, below(rng, 2) == 0), _look(second, below(rng, 2) == 0)
    where = pick(rng, DIRECTION_WORDINGS[direction])
    words = pick(rng, RELATIONS).format(a=_with_number(look, 1), where=where, b=_with_number(other_look, 1))
    return Claims(relations=((look, direction, other_look),)), words


def _related_with_rest(
    scene: Scene, first: Thing, direction: Direction, second: Thing, rng: Random
) -> tuple[Claims, str]:
    """The relation of two things, then the numbers of things with up to two other looks."""
    claims, words = _related(first, direction, second, rng)
    ((look, _, other_look),) = claims.relations
    rest = [thing for thing in scene.things if not look.fits(thing) and not other_look.fits(thing)]
    counts = tuple(
        (look, number) for look, number in _counts(rest, with_size=False) if len(look.among(scene)) == number
    )[:2]
    if not counts:
        return claims, words
    listed = _joined(_with_number(look, number) for look, number in counts)
    return Claims(counts, claims.relations), pick(rng, WITH_REST).format(words, listed)


def _pair(scene: Scene, rng: Random) -> tuple[Thing, Direction, Thing]:
    """Two random things and a direction in which the first is from the second."""
    first, second = shuffled(rng, scene.things)[:2]
    return first, next(direction for direction in shuffled(rng, DIRECTIONS) if first.stands(direction, second)), second


def _counts(things: Iterable[Thing], with_size: bool) -> tuple[tuple[Look, int], ...]:
    return tuple(Counter(_look(thing, with_size) for thing in things).items())


def _look(thing: Thing, with_size: bool) -> Look:
    return Look(thing.size if with_size else None, thing.colour, thing.shape)


def _with_number(look: Look, number: int) -> str:
    """ "a big red circle" or "two red circles"."""
    name = " ".join(word for word in (look.size, look.colour, look.shape) if word)
    return f"a {name}" if number == 1 else f"{NUMBERS[number]} {name}s"


def _joined(parts: Iterable[str]) -> str:
    *before, last = parts
    return f"{', '.join(before)} and {last}" if before else last


def _sentence(words: str, rng: Random) -> str:
    """The sentence as people type it: mostly with a capital and a full stop, often after a space as in COCO."""
    return (words[0].upper() + words[1:] if below(rng, 4) else words) + pick(rng, (".", " .", ".", ""))
