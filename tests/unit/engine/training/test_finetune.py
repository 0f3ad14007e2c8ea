"""Fine-tuning: what a step is, which weights are kept, and that an interruption changes nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from vlbench import catalog
from vlbench.core.cards import Recipe
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.examples import Example, Label, Query
from vlbench.core.progress import Silent
from vlbench.engine.batching.batches import training_blocks
from vlbench.engine.job import Job
from vlbench.engine.learner import Learner
from vlbench.engine.resources import make_resources, resource_spec
from vlbench.engine.runtime.environment import make_accelerator
from vlbench.engine.runtime.interrupt import Interrupt, Interrupted
from vlbench.engine.training import finetune, steps
from vlbench.engine.training.checkpoint import Best, Checkpoints, TrainState
from vlbench.engine.training.finetune import Finetuning, Select
from vlbench.engine.training.plan import Conduct, make_plan, training_units
from vlbench.heads.build import build_head
from vlbench.metrics.direction import MetricValue

Values = dict[str, float | int | str]
RECIPE = Recipe(optimizer="adamw", lr=0.01, weight_decay=0.01, warmup=0.1, clip=1.0, ema=0.5, steps=8, batch_size=6,
                evaluations=4)  # fmt: skip


PLAIN = Conduct()


class Noisy(nn.Module):
    """A backbone with dropout, so that the random state matters."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.width = inner, inner.width
        self.dropout = nn.Dropout(0.3)
        self.prepare_images, self.prepare_texts = inner.prepare_images, inner.prepare_texts

    def see(self, images, slot):
        return self.inner.see({"hash": self.dropout(images["hash"])}, slot)

    def read(self, texts):
        return self.inner.read(texts)

    def fuse(self, seen, read):
        return self.inner.fuse(seen, read)


@pytest.fixture
def job(make_job: Callable[..., Job]) -> Job:
    return make_job(model="fake")


@pytest.fixture
def start(job: Job, tmp_path: Path) -> Callable[..., Finetuning]:
    """A training of a fake learner with a head, always from the same weights."""

    def begin(
        recipe: Recipe = RECIPE, folder: str = "checkpoints", noisy: bool = True, conduct: Conduct = PLAIN
    ) -> Finetuning:
        torch.manual_seed(3)
        backbone = catalog.load_model(job.card, "tiny", make_resources(resource_spec(job), Silent()))
        learner = Learner(
            Noisy(backbone) if noisy else backbone,
            build_head(job.task.card, job.card, backbone.width, job.labels, recipe),
        )
        accelerator = make_accelerator("cpu", "float32", 1)
        plan = make_plan(recipe, training_units(recipe, job.train), 0)
        return Finetuning(learner, job.train, plan, accelerator, Checkpoints(tmp_path / folder), 0, conduct)

    return begin


def weights(learner: nn.Module) -> list[list[float]]:
    return [parameter.flatten().tolist() for parameter in learner.parameters()]


def scores(*values: float, higher_is_better: bool = True) -> Select:
    """A selection that measures these values, one after the other."""
    left: Iterator[float] = iter(values)
    return lambda _: MetricValue(next(left), higher_is_better)


def finish(training: Finetuning, select: Select | None = None, log: list[Values] | None = None) -> TrainState:
    return training.run(select, [].append if log is None else log.append, Silent(), Interrupt(), "finetuning")


@pytest.mark.parametrize(
    ("recipe", "examples", "steps", "at"),
    [
        (Recipe(batch_size=32, epochs=2, evaluations=2), 100, 8, {4, 8}),
        (Recipe(batch_size=32, epochs=3), 100, 12, {4, 8, 12}),
        (Recipe(batch_size=32, epochs=3, steps=10, evaluations=4), 100, 10, {2, 5, 8, 10}),
        (Recipe(batch_size=200, epochs=1), 100, 1, {1}),
        (Recipe(batch_size=10, steps=3), 100, 3, {3}),
    ],
)
def test_a_plan_counts_steps(recipe: Recipe, examples: int, steps: int, at: set[int]) -> None:
    plan = make_plan(recipe, [[row] for row in range(examples)], 0)
    assert (plan.steps, plan.evaluate_at, plan.accumulation) == (steps, at, 1)


@pytest.mark.parametrize("seed", range(3))
def test_epochs_of_related_examples_hold_each_as_often(seed: int) -> None:
    """Units of 5 and one of 1 in batches of 8 rows: batches are not full, and epochs differ in their number."""
    examples = [
        Example(str(row), Query((), ""), Label("True"), "last" if row == 100 else str(row // 5)) for row in range(101)
    ]
    recipe = Recipe(batch_size=8, epochs=4, batches="related")
    units = training_units(recipe, examples)
    assert sorted(map(len, units)) == [1] + [5] * 20
    plan = make_plan(recipe, units, seed)
    blocks = training_blocks(units, 8, plan.steps, seed)
    assert Counter(row for block in blocks for row in block) == dict.fromkeys(range(101), 4)
    assert len(plan.evaluate_at) == 4 and max(plan.evaluate_at) == plan.steps
    every = make_plan(Recipe(batch_size=8, steps=2 * plan.steps // 4, batches="related"), units, seed)
    assert len(every.evaluate_at) == 2


def test_more_evaluations_than_steps_are_as_many_as_steps() -> None:
    recipe = Recipe(batch_size=4, steps=3, evaluations=10)
    assert make_plan(recipe, [[0], [1]], 0).evaluate_at == {1, 2, 3}


@pytest.mark.parametrize("field", ["batch_size", "epochs"])
def test_a_plan_needs_its_numbers(field: str) -> None:
    recipe = Recipe(batch_size=4, epochs=1).model_copy(update={field: None})
    with pytest.raises(VlbenchError, match=f"the recipe has no {field}: .* --set train.{field}"):
        make_plan(recipe, [[0]], 0)


def test_without_selection_the_last_weights_stay(start: Callable[..., Finetuning], tmp_path: Path) -> None:
    training, log = start(), []
    before = weights(training.learner)
    assert finish(training, None, log).best == Best(8, "plain", None)
    assert [values["step"] for values in log] == list(range(1, 9))
    assert [values["lr"] for values in log] == pytest.approx([0.0, *(0.01 * (8 - step) / 7 for step in range(1, 8))])
    assert weights(training.learner) != before
    kept = start(folder="other")
    Checkpoints(tmp_path / "checkpoints").load_best(kept.learner)
    assert weights(kept.learner) == weights(training.learner)


def test_the_best_weights_are_kept_the_first_of_equals(start: Callable[..., Finetuning]) -> None:
    # Plain and averaged weights after steps 2, 4, 6 and 8.
    training, seen = start(), []
    values = iter([50.0, 51.0, 51.0, 60.0, 60.0, 55.0, 59.0, 60.0])

    def select(learner: Learner) -> MetricValue:
        seen.append(weights(learner))
        return MetricValue(next(values))

    state = finish(training, select)
    assert (state.best, state.selected_at) == (Best(4, "ema", 60.0), 8)
    assert weights(training.learner) == seen[3] != seen[2]


def test_where_lower_is_better_the_lowest_is_kept(start: Callable[..., Finetuning]) -> None:
    training = start(RECIPE.model_copy(update={"ema": None}))
    state = finish(training, scores(9.0, 4.5, 4.5, 7.0, higher_is_better=False))
    assert state.best == Best(4, "plain", 4.5)  # of steps 2, 4, 6 and 8


def test_the_average_follows_the_weights(start: Callable[..., Finetuning]) -> None:
    """ema 0.5 after two steps: a quarter of the start, a quarter of step 1, a half of step 2."""
    training = start(RECIPE.model_copy(update={"steps": 2, "evaluations": 2, "warmup": 0.0}))
    seen = [weights(training.learner)]
    averaged: list[list[list[float]]] = []

    def select(learner: Learner) -> MetricValue:
        (seen if learner is training.learner else averaged).append(weights(learner))
        return MetricValue(0.0)

    finish(training, select)
    for start_, one, two, average in zip(*seen, averaged[1], strict=True):
        expected = [(a + b + 2 * c) / 4 for a, b, c in zip(start_, one, two, strict=True)]
        assert average == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("after", [1, 3, 4, 7])
def test_an_interruption_changes_nothing(after: int, start: Callable[..., Finetuning]) -> None:
    whole, log = start(folder="whole"), []
    measured = (50.0, 40.0, 45.0, 52.0, 41.0, 49.0, 44.0, 48.0)
    finish(whole, scores(*measured), log)

    stopped, lines, interrupt = start(), [], Interrupt()

    def note(values: Values) -> None:
        lines.append(values)
        interrupt.asked = interrupt.asked or len([v for v in lines if "loss" in v]) == after

    done = after // 2 * 2  # two values, after each second step
    with pytest.raises(Interrupted):
        stopped.run(scores(*measured), note, Silent(), interrupt, "finetuning")
    torch.manual_seed(1234)
    resumed = start()
    torch.rand(7)  # whatever a new process draws before it goes on
    state = finish(resumed, scores(*measured[done:]), lines)
    assert state == whole.state
    assert weights(resumed.learner) == weights(whole.learner)
    assert [v["loss"] for v in lines if "loss" in v] == [v["loss"] for v in log if "loss" in v]


def test_a_finished_training_is_not_repeated(start: Callable[..., Finetuning]) -> None:
    first, log = start(), []
    finish(first)
    again = start()
    finish(again, None, log)
    assert log == []
    assert weights(again.learner) == weights(first.learner)


def test_accumulation_is_a_larger_batch(start: Callable[..., Finetuning]) -> None:
    one = start(RECIPE.model_copy(update={"ema": None}), "one", noisy=False)
    parts = start(RECIPE.model_copy(update={"ema": None, "accumulation": 3}), "parts", noisy=False)
    log, other = [], []
    finish(one, None, log)
    finish(parts, None, other)
    assert [v["loss"] for v in log] == pytest.approx([v["loss"] for v in other], rel=1e-5)
    for left, right in zip(weights(one.learner), weights(parts.learner), strict=True):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-6)


def test_gradients_are_clipped(start: Callable[..., Finetuning]) -> None:
    free = start(RECIPE.model_copy(update={"clip": None}), "free", noisy=False)
    held = start(RECIPE.model_copy(update={"clip": 1e-9}), "held", noisy=False)
    log: list[Values] = []
    finish(free, None, log)
    assert all(0 < float(values["grad_norm"]) < math.inf for values in log)
    finish(held)
    assert weights(free.learner) != weights(held.learner)


@pytest.mark.parametrize("optimizer", ["adamw", "bert_adam"])
def test_a_single_step_trains_at_the_full_rate(optimizer: str, start: Callable[..., Finetuning]) -> None:
    training, log = start(RECIPE.model_copy(update={"steps": 1, "optimizer": optimizer, "weight_decay": 0.0})), []
    before = weights(training.learner)
    finish(training, None, log)
    assert [values["lr"] for values in log] == [0.01] and weights(training.learner) != before


def test_parameters_without_a_part_in_the_loss_are_found(start: Callable[..., Finetuning]) -> None:
    learner = (training := start(noisy=False)).learner
    given = training.steps.examples, training.plan, training.accelerator
    torch.manual_seed(1)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert not steps.has_unused_parameters(learner, *given)
    assert torch.rand(1) == drawn and all(parameter.grad is None for parameter in learner.parameters())
    learner.head.extra = nn.Linear(1, 1)
    assert steps.has_unused_parameters(learner, *given)
    learner.head.extra.requires_grad_(False)
    assert not steps.has_unused_parameters(learner, *given)
    assert steps.has_unused_parameters(start(folder="own").learner, *given)  # of another package: it may vary


class Fetches(TorchDispatchMode):
    """Notes the operations that make the host wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            self.names.append(function.name())
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_step_fetches_no_value_but_in_one_copy_at_its_end(
    accumulation: int, start: Callable[..., Finetuning], monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[int] = []
    monkeypatch.setattr(steps, "fetched", lambda scalars: [float(copies.append(len(scalars)) or 0)] * len(scalars))
    training = start(RECIPE.model_copy(update={"accumulation": accumulation}))
    training.steps.begin(0, None, Silent())
    with Fetches() as fetches:
        training.steps.do(Silent())
        assert copies == [accumulation + 1] and not fetches.names  # the losses and the norm
        float(torch.zeros(()))
        assert fetches.names


def test_a_loss_of_nan_is_an_error(start: Callable[..., Finetuning]) -> None:
    training = start()
    with torch.no_grad():
        next(training.learner.parameters()).fill_(float("nan"))
    with pytest.raises(VlbenchError, match=r"the loss is not a number at step 1: lower --lr \(0.01\)") as caught:
        finish(training)
    assert "--dtype" not in caught.value.message and "not finite" in caught.value.message
    low = start(folder="low")
    low.accelerator = make_accelerator("cpu", "bfloat16", 1)
    with torch.no_grad():
        next(low.learner.parameters()).fill_(float("nan"))
    with pytest.raises(VlbenchError, match=r"lower --lr \(0.01\) or use --dtype float32"):
        finish(low)


class Limited(nn.Module):
    """Limits a learner's memory to `most` examples per forward pass, from the pass after `late` on."""

    def __init__(self, learner: nn.Module, most: int, late: int = 0) -> None:
        super().__init__()
        self.forwards, self.sizes = 0, list[int]()
        forward = learner.forward

        def limited(batch):
            self.forwards += 1
            if self.forwards > late and len(batch.ids) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            self.sizes.append(len(batch.ids))
            return forward(batch)

        learner.forward = limited


AUTO = Conduct(auto_batch=True)


def test_a_fitting_size_is_found_and_the_step_stays_the_same(start: Callable[..., Finetuning]) -> None:
    recipe = RECIPE.model_copy(update={"ema": None})
    whole, parts, log, other = start(recipe, "whole", noisy=False), start(recipe, "parts", False, AUTO), [], []
    limited_learner = Limited(parts.learner, 2)
    finish(whole, None, log)
    assert finish(parts, None, other).accumulation == 4  # 6 do not fit, 3 neither
    assert max(limited_learner.sizes) == 2
    assert [v["loss"] for v in other] == pytest.approx([v["loss"] for v in log], rel=1e-5)
    assert [v["lr"] for v in other] == [v["lr"] for v in log]


@pytest.mark.parametrize("late", [3, 6])
def test_backing_off_loses_no_batch(late: int, start: Callable[..., Finetuning]) -> None:
    recipe = RECIPE.model_copy(update={"ema": None})
    whole, parts, log, other = start(recipe, "whole", noisy=False), start(recipe, "parts", False, AUTO), [], []
    Limited(parts.learner, 3, late)
    finish(whole, None, log)
    finish(parts, None, other)
    assert parts.steps.accumulation == 2
    assert [v["step"] for v in other] == list(range(1, 9))
    assert [v["loss"] for v in other] == pytest.approx([v["loss"] for v in log], rel=1e-5)
    for left, right in zip(weights(whole.learner), weights(parts.learner), strict=True):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-6)


def test_a_found_size_is_kept_when_resuming(start: Callable[..., Finetuning]) -> None:
    first, interrupt, told = start(RECIPE, "c", True, AUTO), Interrupt(), []
    Limited(first.learner, 3)

    def note(values: Values) -> None:
        interrupt.asked = values["step"] == 3

    with pytest.raises(Interrupted):
        first.run(None, note, Silent(), interrupt, "finetuning")
    again = start(RECIPE, "c", True, AUTO)
    limited_learner = Limited(again.learner, 3)
    finish(again, None, told)
    assert limited_learner.sizes == [3, 3] * 5  # nothing is tried again
    assert [values["step"] for values in told] == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("conduct", "most", "said"),
    [
        (Conduct(), 3, r"out of memory at step 1 with 6 examples per forward: .* --batch-size auto"),
        (AUTO, 0, r"out of memory with a single example per forward: use --activation-checkpointing"),
    ],
)
def test_running_out_of_memory_is_an_error(
    conduct: Conduct, most: int, said: str, start: Callable[..., Finetuning]
) -> None:
    training = start(conduct=conduct)
    Limited(training.learner, most)
    with pytest.raises(VlbenchError, match=said) as caught:
        finish(training)
    assert caught.value.exit_code == ExitCode.OUT_OF_MEMORY


def test_states_are_saved_by_steps_and_by_time(
    start: Callable[..., Finetuning], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    monkeypatch.setattr(Checkpoints, "save_last", lambda _, state, *__: saved.append(state.step))
    finish(start(conduct=Conduct(save_every=3)))
    assert saved == [3, 6, 8]
    saved.clear()
    monkeypatch.setattr(finetune, "SAVE_SECONDS", 0.0)
    finish(start(folder="other"))
    assert saved == [*range(1, 9), 8]
