"""Whether a model can learn, and only from what it may see: 32 examples by heart, and labels drawn by lot."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from scipy.stats import binom

from vlbench.core.batch import Draw
from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Caption, Example, Examples, consensus_of
from vlbench.core.progress import Progress
from vlbench.engine.batching.batches import Batches, loader, sequential_blocks, training_blocks
from vlbench.engine.doctor.subject import Subject, right_for, strangers
from vlbench.engine.doctor.verdict import Check, Verdict
from vlbench.engine.runtime.interrupt import Interrupt
from vlbench.engine.training.checkpoint import Checkpoints
from vlbench.engine.training.finetune import Finetuning
from vlbench.engine.training.plan import Conduct, make_plan, training_units

LEARNED = 32
"""Examples learned by heart."""
BY_HEART = 95.0
"""Percent of them that a sound model gets right in the end."""
ENOUGH = 100
"""Steps under which a model that has not learned them yet is not to blame."""
BATCH = 8
LUCK = 3e-5
"""How likely what may still be luck is at least: beyond four standard deviations of a normal distribution."""
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class School:
    """Where learning is tried. steps: of the optimizer, each time."""

    subject: Subject
    accelerator: Accelerator
    folder: Path
    progress: Progress
    interrupt: Interrupt
    steps: int


def check_learning(school: School, train: Examples, held_out: Examples) -> Iterator[Check]:
    """Overfitting, then shuffled labels; the learner's weights are as before in the end.

    Raises:
        VlbenchError: the loss is not a number.
        Interrupted: asked to stop.
    """
    with _untouched(school.subject):
        yield _by_heart(school, train)
    with _untouched(school.subject):
        yield _shuffled(school, train, held_out)


def _by_heart(school: School, train: Examples) -> Check:
    if reason := _cannot_rank(school.subject, train) or _cannot_contrast(school, train):
        return Check(name="overfit-32", verdict="skipped", found=reason)
    _learn(school, train, "learning by heart")
    subject = _asked_about(school.subject, train)
    share = subject.right(subject.scores(train), train)
    sound = share >= BY_HEART
    found = f"{share:.0f} % right after {school.steps} steps on them, {BY_HEART:.0f} % or more are expected"
    if not sound:
        found += "; where the rate is low, more --steps help"
    told: Verdict = "ok" if sound else "broken" if school.steps >= ENOUGH else "skipped"  # so few would tell nothing
    return Check(name="overfit-32", verdict=told, found=found, n=len(train))


def _shuffled(school: School, train: Examples, held_out: Examples) -> Check:
    """References that reach an answer by another door than training would show: shuffled, nothing else tells them."""
    unfit = _cannot_rank(school.subject, train) or _cannot_rank(school.subject, held_out)
    if reason := unfit or _cannot_contrast(school, train):
        return Check(name="shuffled labels", verdict="skipped", found=reason)
    _learn(school, shuffled(train), "learning shuffled labels")
    asked = shuffled(held_out)
    share, chance = _taught(_asked_about(school.subject, asked), asked)
    return judged_by_luck(round(share / 100 * len(asked)), len(asked), chance / 100)


def judged_by_luck(right: int, n: int, chance: float) -> Check:
    """Whether so many of n right answers may be luck, where each is with a chance in [0, 1].

    Where chances differ from one example to the next, with this mean, so many are no likelier than that.

    Source: the binomial distribution; Hoeffding 1956, theorem 4.
    """
    most = int(binom.isf(LUCK, n, min(chance, 1.0)))
    by_lot = f"{right} of {n} held-out examples right where labels are drawn by lot; chance is {100 * chance:.0f} %"
    if most >= n:
        found = f"{by_lot}, so that even all {n} may be luck: try more --examples, or a split whose answers vary more"
        return Check(name="shuffled labels", verdict="skipped", found=found, n=n)
    sound = right <= most
    found = f"{by_lot}, {f'up to {most} may be luck' if sound else f'more than {most} are no luck: an answer leaks in'}"
    return Check(name="shuffled labels", verdict="ok" if sound else "broken", found=found, n=n)


def _cannot_rank(subject: Subject, examples: Examples) -> str:
    """Why nothing is learned; empty where something may be."""
    if subject.job.kind.ranks_gallery and strangers(examples) == list(examples):
        return f"ranking needs several pictures, and all {len(examples)} examples show one: use data with more"
    return ""


def _cannot_contrast(school: School, train: Examples) -> str:
    """Why a step of two towers has no negatives; empty where each has some."""
    images, seed = school.subject.learner.head.contrasted_images(train), school.subject.job.spec.seed
    if images is None:
        return ""
    try:
        training_blocks(sequential_blocks(len(train), 1), BATCH, school.steps, seed, images)
    except VlbenchError:
        return f"ranking needs several images in each batch of {BATCH}, and one holds a single one: use data with more"
    return ""


def shuffled(examples: Examples) -> list[Example[object]]:
    """Each picture and its text under the reference of an example drawn by lot; where pictures are ranked, its text."""
    drawn = list(examples)
    random.Random("doctor").shuffle(drawn)
    return [
        replace(other, query=replace(other.query, images=own.query.images), reference=own.reference, group=own.group)
        if isinstance(own.reference, Caption)
        else replace(own, reference=other.reference)
        for own, other in zip(examples, drawn, strict=True)
    ]


def _taught(subject: Subject, examples: Examples) -> tuple[float, float]:
    """Percent of examples answered right while their references are at hand, as in training; and what chance gives."""
    if subject.job.kind.generates:  # what it learns is a loss over the answer itself, which is no answer
        return subject.right(subject.scores(examples), examples), _majority(examples)
    model, head = subject.learner.model, subject.learner.head
    blocks = sequential_blocks(len(examples), subject.batch)
    draws = [Draw(tuple(block), tuple(range(len(block))), number, "doctor") for number, block in enumerate(blocks)]
    batches = Batches(examples, blocks, model, head, draws)
    subject.learner.eval()
    with torch.inference_mode():
        logits = [subject.learner(batch.to(subject.device)).logits.float().cpu() for batch in loader(batches, 0, _CPU)]
    if not subject.job.kind.ranks_gallery:
        return subject.right(torch.cat(logits), examples), _majority(examples)
    counted = [head.own_first(scores, len(block)) for scores, block in zip(logits, blocks, strict=True)]
    first, expected = (sum(column) for column in zip(*counted, strict=True))
    return 100 * first / len(examples), 100 * expected / len(examples)


def _majority(examples: Examples) -> float:
    """Percent of examples that the most frequent right answer is right for."""
    counts = Counter(answer for example in examples for answer in right_for(example))
    return 100 * max(counts.values(), default=0) / len(examples)


def _learn(school: School, examples: Examples, what: str) -> None:
    """A short finetuning by the engine's own means, at the recipe's rates."""
    job, learner = school.subject.job, school.subject.learner
    recipe = _recipe(job.spec.train, school.steps)
    images = learner.head.contrasted_images(examples)
    plan = make_plan(recipe, training_units(recipe, examples), job.spec.seed, images)
    checkpoints = Checkpoints(school.folder / what.replace(" ", "-"))
    training = Finetuning(learner, examples, plan, school.accelerator, checkpoints, job.spec.seed, Conduct())
    training.run(None, lambda _: None, school.progress, school.interrupt, what)
    learner.to(school.subject.device)


def _recipe(recipe: Recipe, steps: int) -> Recipe:
    """The recipe without what helps on unseen examples only: averages, changed pictures."""
    return recipe.model_copy(
        update={
            "steps": steps,
            "epochs": None,
            "batch_size": BATCH,
            "accumulation": 1,
            "batch_norm": None,
            "evaluations": 1,
            "batches": "shuffled",
            "augment": "none",
            "short_side": None,
            "long_side": None,
            "ema": None,
            "milestones": None,
            "warmup": 0.1,
            "warmup_steps": None,
            "warmup_from": None,
        }
    )


def _asked_about(subject: Subject, examples: Examples) -> Subject:
    """Of a model that writes, with the answers of these examples as candidates."""
    if not subject.job.kind.generates:
        return subject
    return replace(subject, candidates=tuple(dict.fromkeys(map(consensus_of, examples))))


@contextmanager
def _untouched(subject: Subject) -> Iterator[None]:
    """The learner's weights are put back in the end."""
    before = {name: value.detach().clone() for name, value in subject.learner.state_dict().items()}
    try:
        yield
    finally:
        subject.learner.load_state_dict(before)
