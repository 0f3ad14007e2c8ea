"""The examples that a generative model is shown before each question."""

from __future__ import annotations

from random import Random

from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Example, Examples, consensus_of
from vlbench.core.spec import RunSpec
from vlbench.core.splits import joined


def draw_shots(spec: RunSpec, train: Examples) -> tuple[Example[object], ...]:
    """Examples of the train split, drawn by the seed, the same before every question.

    Raises:
        VlbenchError: too few of them have an answer.
    """
    if not spec.num_fewshot:
        return ()
    order = Random(f"{spec.seed}/shots").sample(range(len(train)), len(train))
    answered = (train[row] for row in order if consensus_of(train[row]))
    shots = tuple(example for example, _ in zip(answered, range(spec.num_fewshot), strict=False))
    if len(shots) < spec.num_fewshot:
        raise VlbenchError(
            f"--num-fewshot {spec.num_fewshot} is more than the {len(shots):,} examples of "
            f"{joined(spec.train_split)!r} that have an answer: give fewer, or another --train-split"
        )
    return shots
