"""Which questions are asked of which photographs: each question text of as many as it has answers, one for each.

So no words give an answer away: whatever is asked, each of its answers is as frequent as the others. VQA v2's
complementary pairs (Goyal et al. 2017) are the model, here over all answers of a question.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random

from vlbench.world.language.programs import Program, Things, answers, definite_mentions, solve
from vlbench.world.language.questions import Kind, Wording, say
from vlbench.world.language.statements import Look
from vlbench.world.language.topics import draw_program
from vlbench.world.rng import pick, shuffled
from vlbench.world.scenes.pools import Photograph
from vlbench.world.scenes.scene import Scene

_TRIES = 2000


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, its words, the photograph it is about, and the true answer."""

    kind: Kind
    program: Program
    wording: Wording
    photograph: Photograph
    answer: str


def ask_evenly(
    photographs: Sequence[Photograph], shares: Mapping[Kind, int], total: int, rng: Random
) -> Iterator[Asked]:
    """About `total` questions, of each kind its share in percent.

    Of a few photographs too little can be asked of some kinds; the next kinds then get more. No photograph is asked
    the same twice.
    """
    album = _Album(shuffled(rng, photographs))
    percent, count = 0, 0
    for kind, share in shares.items():
        percent += share
        while count < total * percent // 100:
            found = album.find(kind, rng)
            if found is None:
                break
            program, by_answer = found
            wording = say(kind, program, rng)
            for answer, photograph in by_answer.items():
                album.note(program, photograph)
                yield Asked(kind, program, wording, photograph, answer)
            count += len(by_answer)


class _Album:
    """Photographs in the order in which they were last asked about, to be found by what is in them."""

    def __init__(self, photographs: Sequence[Photograph]) -> None:
        self._photographs = photographs
        self._queue = OrderedDict((photograph.number, photograph) for photograph in photographs)
        self._open: dict[Program, dict[int, str | None]] = {}
        """The answers seen so far by photograph; None where there is none, or it has been asked."""
        self._last = {number: rank - len(photographs) for rank, number in enumerate(self._queue)}
        self._clock = 0
        self._meant: dict[tuple[Look, bool], dict[int, Photograph]] = {}
        for number, photograph in self._queue.items():
            for look, count in _looks(photograph.scene).items():
                self._meant.setdefault((look, count > 1), {})[number] = photograph

    def note(self, program: Program, photograph: Photograph) -> None:
        """It is asked of this photograph now."""
        self._open[program][photograph.number] = None
        self._queue.move_to_end(photograph.number)
        self._last[photograph.number] = self._clock = self._clock + 1

    def find(self, kind: Kind, rng: Random) -> tuple[Program, dict[str, Photograph]] | None:
        """A question of that kind with a photograph for each answer, if a few tries bring one."""
        for _ in range(_TRIES):
            scene = pick(rng, self._photographs).scene
            program = draw_program(kind, scene.things, rng)
            if program is None or solve(program, scene) is None:
                continue
            by_answer = self._by_answer(program)
            if len(by_answer) == len(answers(program)):
                return program, by_answer
        return None

    def _by_answer(self, program: Program) -> dict[str, Photograph]:
        """The photograph that waits longest for each answer of the program."""
        found: dict[str, Photograph] = {}
        wanted = len(answers(program))
        open_ = self._open.setdefault(program, {})
        for photograph in self._candidates(definite_mentions(program)):
            if photograph.number not in open_:
                open_[photograph.number] = solve(program, photograph.scene)
            answer = open_[photograph.number]
            if answer is not None and answer not in found:
                found[answer] = photograph
                if len(found) == wanted:
                    break
        return found

    def _candidates(self, definite: Sequence[Things]) -> Iterable[Photograph]:
        """Those where each of these means something, the longest waiting first."""
        if not definite:
            return self._queue.values()
        found = [self._meant.get((one.look, one.plural), {}) for one in definite]
        numbers = set(found[0]).intersection(*found[1:])
        return [found[0][number] for number in sorted(numbers, key=self._last.__getitem__)]


def _looks(scene: Scene) -> Counter[Look]:
    """How many things of a scene look so, for every look that any of them has."""
    return Counter(
        Look(size, colour, shape)
        for thing in scene.things
        for size, colour, shape in product((None, thing.size), (None, thing.colour), (None, thing.shape))
    )
