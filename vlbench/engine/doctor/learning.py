"""Check that a model can learn, and only from its inputs: it overfits 32 examples, and fails on shuffled labels."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import scipy
import torch
from accelerate import Accelerator

from vlbench.core.batch import Draw
from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Caption, Example, Examples, consensus_of
from vlbench.core.progress import Progress
from vlbench.engine.batching.batches import Batches, loader, sequential_blocks, training_blocks
from vlbench.engine.doctor.checks import Check, CheckStatus
from vlbench.engine.doctor.examined_model import ExaminedModel, best_answers, with_other_images
from vlbench.engine.runtime.interrupt import Interrupt
from vlbench.engine.training.checkpoint import Checkpoints
from vlbench.engine.training.finetune import Finetuning
from vlbench.engine.training.plan import Conduct, make_plan, training_units

OVERFIT_EXAMPLES = 32
OVERFIT_ACCURACY = 95.0
"""The least accuracy in percent that a correct model reaches on them."""
LEAST_STEPS = 100
"""With fewer steps, a model that does not overfit may just need more."""
BATCH = 8
SIGNIFICANCE = 3e-5
"""Results with at least this probability by guessing are no sign of a leak: four standard deviations of a normal."""
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class LearningSetup:
    """What the learning checks need. steps: of the optimizer, for each check."""

    model: ExaminedModel
    accelerator: Accelerator
    folder: Path
    progress: Progress
    interrupt: Interrupt
    steps: int


def check_learning(setup: LearningSetup, train: Examples, held_out: Examples) -> Iterator[Check]:
    """Overfit the train examples, then train on shuffled labels; the learner's weights are restored afterwards.

    Raises:
        VlbenchError: the loss is not finite.
        Interrupted: asked to stop.
    """
    weights = deepcopy(setup.model.learner.state_dict())
    for check in (partial(_check_overfitting, setup, train), partial(_check_shuffled_labels, setup, train, held_out)):
        try:
            yield check()
        finally:
            setup.model.learner.load_state_dict(weights)


def _check_overfitting(setup: LearningSetup, train: Examples) -> Check:
    if reason := _why_no_ranking(setup.model, train) or _why_no_contrast(setup, train):
        return Check(name="overfit-32", verdict="skipped", found=reason)
    _finetune(setup, train, "overfitting")
    model = _with_candidates(setup.model, train)
    accuracy = model.accuracy(model.scores(train), train)
    passed = accuracy >= OVERFIT_ACCURACY
    found = f"{accuracy:.0f} % correct after {setup.steps} steps, at least {OVERFIT_ACCURACY:.0f} % expected"
    if not passed:
        found += "; with a low learning rate, try more --steps"
    # With few steps a failure is inconclusive.
    status: CheckStatus = "ok" if passed else "broken" if setup.steps >= LEAST_STEPS else "skipped"
    return Check(name="overfit-32", verdict=status, found=found, n=len(train))


def _check_shuffled_labels(setup: LearningSetup, train: Examples, held_out: Examples) -> Check:
    """Train and evaluate on shuffled references, which the inputs cannot predict: right answers mean a leak."""
    unfit = _why_no_ranking(setup.model, train) or _why_no_ranking(setup.model, held_out)
    if reason := unfit or _why_no_contrast(setup, train):
        return Check(name="shuffled labels", verdict="skipped", found=reason)
    _finetune(setup, shuffle_references(train), "learning shuffled labels")
    examples = shuffle_references(held_out)
    accuracy, expected = _accuracy_with_references(_with_candidates(setup.model, examples), examples)
    return check_for_leak(round(accuracy / 100 * len(examples)), len(examples), expected / 100)


def check_for_leak(right: int, n: int, probability: float) -> Check:
    """Check whether `right` of n answers can be right by guessing, each with a probability in [0, 1].

    If the probabilities differ between examples and this is their mean, so many right answers are no more likely.

    Source: the binomial distribution; Hoeffding 1956, theorem 4.
    """
    most = int(scipy.stats.binom.isf(SIGNIFICANCE, n, min(probability, 1.0)))
    found = (
        f"{right} of {n} held-out examples correct with shuffled labels, "
        f"{100 * probability:.0f} % expected by guessing: "
    )
    if most >= n:
        found += f"even {n} could be guessed; try more --examples, or a split with more varied answers"
        return Check(name="shuffled labels", verdict="skipped", found=found, n=n)
    passed = right <= most
    found += f"up to {most} can be guessed" if passed else f"more than {most} cannot be guessed, so labels leak"
    return Check(name="shuffled labels", verdict="ok" if passed else "broken", found=found, n=n)


def _why_no_ranking(model: ExaminedModel, examples: Examples) -> str:
    """Why a model that ranks can learn nothing from the examples; empty if it can."""
    if model.job.kind.ranks_gallery and with_other_images(examples) == list(examples):
        return f"ranking needs different images, and all {len(examples)} examples have the same: use data with more"
    return ""


def _why_no_contrast(setup: LearningSetup, train: Examples) -> str:
    """Why a contrastive step has no negatives; empty if it has."""
    images, seed = setup.model.learner.head.contrasted_images(train), setup.model.job.spec.seed
    if images is None:
        return ""
    try:
        training_blocks(sequential_blocks(len(train), 1), BATCH, setup.steps, seed, images)
    except VlbenchError:
        return f"ranking needs different images in each batch of {BATCH}, and one has only one: use data with more"
    return ""


def shuffle_references(examples: Examples) -> list[Example[object]]:
    """The examples with shuffled references; where images are ranked, with shuffled texts."""
    drawn = list(examples)
    random.Random("doctor").shuffle(drawn)
    return [
        replace(other, query=replace(other.query, images=own.query.images), reference=own.reference, group=own.group)
        if isinstance(own.reference, Caption)
        else replace(own, reference=other.reference)
        for own, other in zip(examples, drawn, strict=True)
    ]


def _accuracy_with_references(model: ExaminedModel, examples: Examples) -> tuple[float, float]:
    """The accuracy when the head has the references, as in training, and the accuracy of guessing; in percent."""
    if model.job.kind.generates:  # its training forward pass gives a loss and no answer
        return model.accuracy(model.scores(examples), examples), _majority_accuracy(examples)
    learner, blocks = model.learner, sequential_blocks(len(examples), model.batch)
    draws = [Draw(tuple(block), tuple(range(len(block))), number, "doctor") for number, block in enumerate(blocks)]
    batches = Batches(examples, blocks, learner.model, learner.head, draws)
    learner.eval()
    with torch.inference_mode():
        logits = [learner(batch.to(model.device)).logits.float().cpu() for batch in loader(batches, 0, _CPU)]
    if not model.job.kind.ranks_gallery:
        return model.accuracy(torch.cat(logits), examples), _majority_accuracy(examples)
    counts = [learner.head.own_first(scores, len(block)) for scores, block in zip(logits, blocks, strict=True)]
    first, expected = (sum(column) for column in zip(*counts, strict=True))
    return 100 * first / len(examples), 100 * expected / len(examples)


def _majority_accuracy(examples: Examples) -> float:
    """Accuracy of the majority baseline in percent: always the answer that is right most often."""
    counts = Counter(answer for example in examples for answer in best_answers(example))
    return 100 * max(counts.values(), default=0) / len(examples)


def _finetune(setup: LearningSetup, examples: Examples, what: str) -> None:
    """Fine-tune briefly as a run does, with the recipe's learning rates."""
    job, learner = setup.model.job, setup.model.learner
    recipe = _simplify_recipe(job.spec.train, setup.steps)
    images = learner.head.contrasted_images(examples)
    plan = make_plan(recipe, training_units(recipe, examples), job.spec.seed, images)
    checkpoints = Checkpoints(setup.folder / what.replace(" ", "-"))
    training = Finetuning(learner, examples, plan, setup.accelerator, checkpoints, job.spec.seed, Conduct())
    training.run(None, lambda _: None, setup.progress, setup.interrupt, what)
    learner.to(setup.model.device)


def _simplify_recipe(recipe: Recipe, steps: int) -> Recipe:
    """The recipe without what only improves generalization: weight averages, image augmentation."""
    changed: dict[str, object] = {"steps": steps, "batch_size": BATCH, "accumulation": 1, "evaluations": 1}
    changed |= {"batches": "shuffled", "augment": "none", "warmup": 0.1}
    unset = ("epochs", "batch_norm", "short_side", "long_side", "ema", "milestones", "warmup_steps", "warmup_from")
    return recipe.model_copy(update=changed | dict.fromkeys(unset))


def _with_candidates(model: ExaminedModel, examples: Examples) -> ExaminedModel:
    """A generative model with the answers of these examples as candidates; any other model unchanged."""
    if not model.job.kind.generates:
        return model
    return replace(model, candidates=tuple(dict.fromkeys(map(consensus_of, examples))))
