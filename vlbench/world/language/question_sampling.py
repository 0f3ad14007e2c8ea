"""Sample questions and photographs so that the possible answers of every question text are equally frequent.

Each question is asked about one photograph per possible answer, so the text alone does not predict the answer. This
extends the complementary pairs of VQA v2 (Goyal et al. 2017) to all answers of a question.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random

from vlbench.world.language.programs import Program, Things, answers, definite_mentions, solve
from vlbench.world.language.questions import QuestionKind, Wording, phrase_question
from vlbench.world.language.statements import Look
from vlbench.world.language.topics import draw_program
from vlbench.world.rng import pick, shuffled
from vlbench.world.scenes.pools import Photograph
from vlbench.world.scenes.scene import Scene

_TRIES = 2000


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """A question: its program, its wording, the photograph it is about, and the true answer."""

    kind: QuestionKind
    program: Program
    wording: Wording
    photograph: Photograph
    answer: str


def ask_evenly(
    photographs: Sequence[Photograph], shares: Mapping[QuestionKind, int], total: int, rng: Random
) -> Iterator[AskedQuestion]:
    """Yield about `total` questions; `shares` gives the percentage of each kind.

    If there are too few photographs for the share of one kind, the next kinds get more. No question is asked twice
    about the same photograph.
    """
    index = _PhotographIndex(shuffled(rng, photographs))
    percent, count = 0, 0
    for kind, share in shares.items():
        percent += share
        while count < total * percent // 100:
            question = index.find_question(kind, rng)
            if question is None:
                break
            program, by_answer = question
            wording = phrase_question(kind, program, rng)
            for answer, photograph in by_answer.items():
                index.record(program, photograph)
                yield AskedQuestion(kind, program, wording, photograph, answer)
            count += len(by_answer)


class _PhotographIndex:
    """Photographs ordered by when they were last used, with an index by the looks of their things."""

    def __init__(self, photographs: Sequence[Photograph]) -> None:
        self._photographs = photographs
        self._queue = OrderedDict((photograph.number, photograph) for photograph in photographs)
        self._answers: dict[Program, dict[int, str | None]] = {}
        """The known answers by photograph; None if there is no answer, or the question has been asked."""
        self._last_used = {number: rank - len(photographs) for rank, number in enumerate(self._queue)}
        self._clock = 0
        self._by_look: dict[tuple[Look, bool], dict[int, Photograph]] = {}
        for number, photograph in self._queue.items():
            for look, count in _count_looks(photograph.scene).items():
                self._by_look.setdefault((look, count > 1), {})[number] = photograph

    def record(self, program: Program, photograph: Photograph) -> None:
        """Record that the question is asked about the photograph."""
        self._answers[program][photograph.number] = None
        self._queue.move_to_end(photograph.number)
        self._last_used[photograph.number] = self._clock = self._clock + 1

    def find_question(self, kind: QuestionKind, rng: Random) -> tuple[Program, dict[str, Photograph]] | None:
        """A random question of that kind with a photograph per answer; None if `_TRIES` attempts find none."""
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
        """For each answer of the program, the photograph that has not been used for the longest time."""
        by_answer: dict[str, Photograph] = {}
        wanted = len(answers(program))
        known = self._answers.setdefault(program, {})
        for photograph in self._candidates(definite_mentions(program)):
            if photograph.number not in known:
                known[photograph.number] = solve(program, photograph.scene)
            answer = known[photograph.number]
            if answer is not None and answer not in by_answer:
                by_answer[answer] = photograph
                if len(by_answer) == wanted:
                    break
        return by_answer

    def _candidates(self, definite: Sequence[Things]) -> Iterable[Photograph]:
        """The photographs where all of these have a referent, the least recently used first."""
        if not definite:
            return self._queue.values()
        matching = [self._by_look.get((things.look, things.plural), {}) for things in definite]
        numbers = set(matching[0]).intersection(*matching[1:])
        return [matching[0][number] for number in sorted(numbers, key=self._last_used.__getitem__)]


def _count_looks(scene: Scene) -> Counter[Look]:
    """The number of things of a scene with each look that at least one of them has."""
    return Counter(
        Look(size, colour, shape)
        for thing in scene.things
        for size, colour, shape in product((None, thing.size), (None, thing.colour), (None, thing.shape))
    )
