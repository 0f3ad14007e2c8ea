"""Linear probing: train a linear head on features of a frozen backbone, which are computed once and kept in memory.

Shapes: B examples, I images per example, P = B * I pairs, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlbench.core.errors import VlbenchError, remedy_of_nan
from vlbench.core.examples import Examples
from vlbench.core.results import Prediction
from vlbench.core.task import ids_of
from vlbench.engine.batching.batches import Batches, loader, sequential_blocks, training_blocks
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.progress_timing import Pace
from vlbench.engine.training.checkpoint import Best
from vlbench.engine.training.finetune import Log
from vlbench.engine.training.optimizer import make_optimizer, make_schedule
from vlbench.engine.training.plan import Plan
from vlbench.heads.classify import ClassifyHead, classify_head
from vlbench.metrics.direction import MetricValue

Measure = Callable[[list[Prediction]], MetricValue]
"""Measures the main metric of predictions on the selection split, with its direction."""

MIN_DEVIATION = 1e-6
"""The least standard deviation to divide a feature by; that of a nearly constant feature is smaller."""


@dataclass(frozen=True)
class Selection:
    """How the best weights are selected. examples: of the selection split. measure: of predictions for them."""

    examples: Examples
    measure: Measure


def probe(
    learner: Learner, train: Examples, selection: Selection | None, plan: Plan, pace: Pace, log: Log, seed: int
) -> Best:
    """Train the learner's head, a single Linear, on the backbone's features and keep its best, else its last weights.

    The head is trained on features standardised to mean 0 and deviation 1. Afterwards its weights are rewritten
    for features that are not standardised, so that the learner is used like any other. Returns which weights are kept.

    Raises:
        Interrupted: the user asked to stop; nothing of a probe is saved before its end.
        VlbenchError: the loss is not a number; the message names the step.
    """
    head = classify_head(learner.head)
    features = pooled_features(learner, train, pace)
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0).clamp(min=MIN_DEVIATION)
    chosen = (pooled_features(learner, selection.examples, pace) - mean) / deviation if selection else None
    learner.head.cpu()
    training = _Training(head, (features - mean) / deviation, head.targets(train), plan, seed)
    best, kept = Best(plan.steps, "plain", None), None
    for step in range(1, plan.steps + 1):
        pace.check()
        loss = training.step(step)
        if loss != loss:
            remedy = remedy_of_nan(plan.recipe.lr, pace.accelerator.mixed_precision == "no")
            raise VlbenchError(f"the loss is not a number at step {step}: {remedy}")
        log({"step": step, "loss": loss})
        pace.progress.step(pace.what, step, plan.steps)
        if selection is None or chosen is None or step not in plan.evaluate_at:
            continue
        with torch.inference_mode():
            logits = head.from_pooled(chosen)
            measured = selection.measure(head.finish(logits, ids_of(selection.examples)))
        log({"step": step, "weights": "plain", "selection": measured.value})
        if measured.is_better_than(best.value):
            best, kept = Best(step, "plain", measured.value), deepcopy(learner.head.state_dict())
    if kept is not None:
        learner.head.load_state_dict(kept)
    _rewrite(learner.head, mean, deviation)
    learner.to(pace.accelerator.device)
    return best


def pooled_features(learner: Learner, examples: Examples, pace: Pace) -> Tensor:
    """The backbone's pooled features of the examples, [P, D] float32 on the CPU, in the order of the examples.

    A generative model gives one vector per example, whatever its number of images.

    Raises:
        Interrupted: the user asked to stop.
    """
    device, head = pace.accelerator.device, classify_head(learner.head)
    features, done = list[Tensor](), 0
    learner.to(device).eval()
    with torch.no_grad(), pace.accelerator.autocast():
        blocks = sequential_blocks(len(examples), pace.batch_size)
        for batch in loader(Batches(examples, blocks, learner.model, head), pace.workers, device):
            features.append(head.features(learner.model, batch.to(device)).pooled.float().cpu())
            done += len(batch.ids)
            pace.step(done, len(examples))
    return torch.cat(features)


class _Training:
    """The training of a head on standardised features [P, D] and targets of B examples."""

    def __init__(self, head: ClassifyHead, features: Tensor, targets: Tensor, plan: Plan, seed: int) -> None:
        self.head, self.targets, self.plan = head, targets, plan
        self.features = features.reshape(len(targets), -1, features.shape[1])  # [B, I, D]
        self.optimizer = make_optimizer(head, None, plan.recipe)
        self.schedule = make_schedule(self.optimizer, plan.steps, plan.recipe)
        self.blocks = training_blocks([[row] for row in range(len(targets))], plan.batch_size, plan.steps, seed)

    def step(self, number: int) -> float:
        """Do an optimizer step, counted from 1, and return the loss before it."""
        rows, head = torch.tensor(self.blocks[number - 1]), self.head
        loss = head.loss(head.from_pooled(self.features[rows].flatten(0, 1)), self.targets[rows])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())


def _rewrite(head: nn.Module, mean: Tensor, deviation: Tensor) -> None:
    """Rewrite W (x - mean) / deviation + b as one Linear over x [I * D], the features of an example's images.

    mean and deviation: of the features [D].
    """
    linear = next(module for module in head.modules() if isinstance(module, nn.Linear))
    images = linear.in_features // len(mean)
    weight = linear.weight.data / deviation.repeat(images)
    linear.bias.data -= weight @ mean.repeat(images)
    linear.weight.data = weight
