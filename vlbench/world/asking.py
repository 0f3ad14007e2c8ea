"""Which questions are asked of which photographs: each question text of as many as it has answers, one for each.

So no words give an answer away: whatever is asked, each of its answers is as frequent as the others. VQA v2's
complementary pairs (Goyal et al. 2017) are the model, here over all answers of a question.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from vlbench.world.chance import shuffled
from vlbench.world.pools import Photograph
from vlbench.world.programs import Program, answers, solve
from vlbench.world.questions import Kind, Wording, say
from vlbench.world.topics import draw_program

_TRIES = 60


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

    Of a few photographs too little can be asked of some kinds; the next kinds then get more. Those asked of least
    lately come first. No photograph is asked the same twice.
    """
    queue = shuffled(rng, photographs)
    known: set[tuple[int, Program]] = set()
    percent, count = 0, 0
    for kind, share in shares.items():
        percent += share
        while count < total * percent // 100:
            found = _find(kind, queue, known, rng)
            if found is None:
                break
            program, by_answer = found
            wording = say(kind, program, rng)
            for answer, photograph in by_answer.items():
                known.add((photograph.number, program))
                queue.remove(photograph)
                queue.append(photograph)
                yield Asked(kind, program, wording, photograph, answer)
            count += len(by_answer)


def _find(
    kind: Kind, queue: Sequence[Photograph], known: set[tuple[int, Program]], rng: Random
) -> tuple[Program, dict[str, Photograph]] | None:
    """A question of that kind with a photograph for each of its answers, if a few tries bring one."""
    for _ in range(_TRIES):
        program = draw_program(kind, rng)
        wanted = len(answers(program))
        by_answer: dict[str, Photograph] = {}
        for photograph in queue:
            answer = solve(program, photograph.scene)
            if answer is not None and answer not in by_answer and (photograph.number, program) not in known:
                by_answer[answer] = photograph
                if len(by_answer) == wanted:
                    return program, by_answer
    return None
