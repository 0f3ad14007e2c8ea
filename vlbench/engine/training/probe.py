"""A linear head over features of a backbone that stays as it is: each is computed once, all are kept in memory.

Shapes: B examples, I pictures per example, P = B * I pairs, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Example
from vlbench.core.head import Answering
from vlbench.core.results import Prediction
from vlbench.engine.batching.batches import loader, sequential_blocks, training_blocks
from vlbench.engine.evaluators.learner import Learner, only_pooled
from vlbench.engine.runtime.environment import remedy_of_nan
from vlbench.engine.runtime.progress_timing import Pace
from vlbench.engine.training.checkpoint import Best
from vlbench.engine.training.finetune import Log
from vlbench.engine.training.optimizer import make_optimizer, make_schedule
from vlbench.engine.training.plan import Plan
from vlbench.metrics.direction import MetricValue

Examples = Sequence[Example[Any]]
Measure = Callable[[list[Prediction]], MetricValue]
"""The main metric of predictions for the selection split, with its direction."""

LEAST_DEVIATION = 1e-6
"""Of a feature that is as good as constant, which dividing would blow up."""


@dataclass(frozen=True)
class Selection:
    """What the best weights are chosen on."""

    examples: Examples
    measure: Measure


def probe(
    learner: Learner, train: Examples, selection: Selection | None, plan: Plan, pace: Pace, log: Log, seed: int
) -> Best:
    """Train the learner's head, a single Linear, on the backbone's features; the best seen, else the last, stays.

    Features are brought to mean 0 and deviation 1 while it trains, and the weights rewritten afterwards for features as
    they are, so that the learner answers like any other.

    Raises:
        Interrupted: asked to stop; nothing of a probe is saved before its end.
        VlbenchError: the loss is not a number, naming the step.
    """
    head = cast(Answering, learner.head)
    found = pooled_features(learner, train, pace)
    mean, deviation = found.mean(dim=0), found.std(dim=0, correction=0).clamp(min=LEAST_DEVIATION)
    chosen = (pooled_features(learner, selection.examples, pace) - mean) / deviation if selection else None
    learner.head.cpu()
    training = _Training(learner.head, (found - mean) / deviation, head.targets(train), plan, seed)
    best, kept = Best(plan.steps, "plain", None), None
    for step in range(1, plan.steps + 1):
        pace.check()
        loss = training.step(step)
        if loss != loss:
            remedy = remedy_of_nan(pace.accelerator, plan.recipe.lr)
            raise VlbenchError(f"the loss is not a number at step {step}: {remedy}")
        log({"step": step, "loss": loss})
        pace.progress.step(pace.what, step, plan.steps)
        if selection is None or chosen is None or step not in plan.evaluate_at:
            continue
        with torch.inference_mode():
            answers = head.finish(head(only_pooled(chosen)), [example.id for example in selection.examples])
        measured = selection.measure(answers)
        log({"step": step, "weights": "plain", "selection": measured.value})
        if measured.is_better_than(best.value):
            best, kept = Best(step, "plain", measured.value), _copied(learner.head)
    if kept is not None:
        learner.head.load_state_dict(kept)
    _rewrite(learner.head, mean, deviation)
    learner.to(pace.accelerator.device)
    return best


def pooled_features(learner: Learner, examples: Examples, pace: Pace) -> Tensor:
    """What the backbone makes of the examples' own pairs, [P, D] float32 on the CPU, example by example.

    A model that takes prompts makes one vector of each example, whatever the number of its pictures.

    Raises:
        Interrupted: asked to stop.
    """
    device = pace.accelerator.device
    found, done = list[Tensor](), 0
    learner.to(device).eval()
    with torch.no_grad(), pace.accelerator.autocast():
        blocks = sequential_blocks(len(examples), pace.batch_size)
        for batch in loader(learner.batches(examples, blocks), pace.workers, device):
            found.append(learner.features(batch.to(device)).pooled.float().cpu())
            done += len(batch.ids)
            pace.step(done, len(examples))
    return torch.cat(found)


class _Training:
    """A head, standardised features [P, D] and targets of B examples, and what steps through them."""

    def __init__(self, head: nn.Module, features: Tensor, targets: Tensor, plan: Plan, seed: int) -> None:
        self.head, self.targets, self.plan = head, targets, plan
        self.features = features.reshape(len(targets), -1, features.shape[1])  # [B, I, D]
        self.optimizer = make_optimizer(head, None, plan.recipe)
        self.schedule = make_schedule(self.optimizer, plan.steps, plan.recipe)
        self.blocks = training_blocks([[row] for row in range(len(targets))], plan.batch_size, plan.steps, seed)

    def step(self, number: int) -> float:
        """One optimizer step, counted from 1: the loss before it."""
        rows, head = torch.tensor(self.blocks[number - 1]), cast(Answering, self.head)
        loss = head.loss(head(only_pooled(self.features[rows].flatten(0, 1))), self.targets[rows])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())


def _rewrite(head: nn.Module, mean: Tensor, deviation: Tensor) -> None:
    """W (x - mean) / deviation + b as one Linear; it may take several pictures' features side by side."""
    linear = next(module for module in head.modules() if isinstance(module, nn.Linear))
    pictures = linear.in_features // len(mean)
    weight = linear.weight.data / deviation.repeat(pictures)
    linear.bias.data -= weight @ mean.repeat(pictures)
    linear.weight.data = weight


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
