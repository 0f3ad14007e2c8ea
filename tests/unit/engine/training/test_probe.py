"""A linear head on frozen features: it learns what is linear in them, and is then used like any other learner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from vlbench import catalog
from vlbench.core.backbone import Features
from vlbench.core.cards import HeadLayout, Recipe
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.core.progress import Silent
from vlbench.data.images.load import ImageFiles
from vlbench.data.resources import Resources
from vlbench.engine.defaults import PROBE
from vlbench.engine.evaluators.classification import classify
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.interrupt import Interrupt, Interrupted
from vlbench.engine.runtime.progress_timing import Pace
from vlbench.engine.training.checkpoint import Best
from vlbench.engine.training.plan import make_plan
from vlbench.engine.training.probe import Selection, pooled_features, probe
from vlbench.heads.classify import ClassifyHead
from vlbench.metrics.direction import MetricValue

LABELS = ("False", "True")


@pytest.fixture
def pace() -> Pace:
    return Pace(Accelerator(cpu=True), 7, 0, Silent(), Interrupt(), "probing")


@pytest.fixture
def learner() -> Learner:
    """The fake model with scaled and shifted features, under a linear head over two images."""
    backbone: Any = catalog.load_model(catalog.model_card("fake"), "tiny", Resources(None, ImageFiles()))
    torch.manual_seed(3)
    backbone.gain.data, backbone.bias.data = torch.logspace(-2, 2, backbone.width), 100 * torch.randn(backbone.width)
    return Learner(backbone, ClassifyHead(backbone.width, LABELS, HeadLayout(hidden=0), 2))


@pytest.fixture
def examples(learner: Learner, pace: Pace) -> list[Example[Label]]:
    """Forty examples, whose labels are the sign of a feature of the second image."""

    def example(number: int, label: str) -> Example[Label]:
        refs = tuple(ImageRef(Path(f"{number}-{side}.png"), f"{number}-{side}") for side in range(2))
        return Example(str(number), Query(refs, f"text {number % 5}"), Label(label), str(number))

    blank = [example(number, "True") for number in range(40)]
    features = pooled_features(learner, blank, pace).reshape(40, 2, -1)[:, 1, 9]
    return [example(row, LABELS[int(value > features.median())]) for row, value in enumerate(features)]


def run(learner: Learner, examples: list[Example[Label]], pace: Pace, selection: Selection | None = None) -> Any:
    recipe = PROBE.merged(Recipe(steps=300, lr=0.05, batch_size=20, evaluations=3))
    plan = make_plan(recipe, [[row] for row in range(len(examples))], 0)
    log: list[dict[str, float | int | str]] = []
    return probe(learner, examples, selection, plan, pace, log.append, seed=0), log


def test_features_are_the_backbones_own_pair_by_pair(
    learner: Learner, examples: list[Example[Label]], pace: Pace
) -> None:
    found = pooled_features(learner, examples, pace)
    backbone = learner.backbone
    for row, (example, place) in enumerate((example, place) for example in examples for place in range(2)):
        seen = backbone.see(backbone.prepare_images([example.query.images[place]]), torch.tensor([place]))
        read = backbone.read(backbone.prepare_texts([example.query.text]))
        torch.testing.assert_close(found[row], backbone.fuse(seen, read).pooled[0].detach())
    assert found.shape == (80, backbone.width) and not found.requires_grad


def test_features_are_those_of_evaluation_mode(learner: Learner, examples: list[Example[Label]], pace: Pace) -> None:
    """Dropout and a batch norm over the pooled features: both would reveal the training mode."""
    expected = pooled_features(learner, examples, pace)
    inner = learner.backbone
    noisy: Any = Dropping(inner)
    noisy_learner = Learner(noisy, learner.head).train()
    torch.testing.assert_close(pooled_features(noisy_learner, examples, pace), expected / (1 + 1e-5) ** 0.5)
    assert noisy.norm.running_mean.eq(0).all() and int(noisy.norm.num_batches_tracked) == 0


class Dropping(nn.Module):
    """The fake model with layers that behave differently in training mode."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.width = inner, inner.width
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(inner.width)
        self.prepare_images, self.prepare_texts = inner.prepare_images, inner.prepare_texts
        self.see, self.read = inner.see, inner.read

    def fuse(self, seen: Any, read: Any) -> Features:
        features = self.inner.fuse(seen, read)
        return replace(features, pooled=self.dropout(self.norm(features.pooled)))


def test_it_learns_what_is_linear_and_keeps_it(learner: Learner, examples: list[Example[Label]], pace: Pace) -> None:
    before = learner.backbone.gain.clone()  # type: ignore[attr-defined]
    best, log = run(learner, examples, pace)
    answered, _ = classify(learner, examples, pace)
    assert [one.answer for one in answered] == [example.reference.value for example in examples]
    assert (best.step, best.value, len(log)) == (300, None, 300) and log[-1]["loss"] < 0.3 * log[0]["loss"]
    assert torch.equal(learner.backbone.gain, before)  # type: ignore[attr-defined]


def test_the_best_selected_weights_are_kept(learner: Learner, examples: list[Example[Label]], pace: Pace) -> None:
    values, answers = iter((80.0, 50.0, 60.0)), []

    def measure(found: list[Any]) -> MetricValue:
        answers.append({one.example_id: one.scores["True"] for one in found})
        return MetricValue(next(values))

    best, log = run(learner, examples, pace, Selection(examples, measure))
    assert (best.step, best.value) == (100, 80.0)
    assert [line["selection"] for line in log if "selection" in line] == [80.0, 50.0, 60.0]
    after = {one.example_id: one.scores["True"] for one in classify(learner, examples, pace)[0]}
    assert after == pytest.approx(answers[0], abs=1e-4) and after != pytest.approx(answers[2], abs=1e-4)


@pytest.mark.parametrize(
    ("values", "higher_is_better", "step"),
    [((9.0, 4.0, 6.0), False, 200), ((50.0, 70.0, 70.0), True, 200), ((4.0, 4.0, 4.0), False, 100)],
)
def test_the_metrics_direction_decides_and_the_first_of_equals_is_kept(
    values: tuple[float, ...], higher_is_better: bool, step: int, learner: Learner, examples: list[Any], pace: Pace
) -> None:
    left, answers = iter(values), []

    def measure(found: list[Any]) -> MetricValue:
        answers.append({one.example_id: one.scores["True"] for one in found})
        return MetricValue(next(left), higher_is_better)

    best, _ = run(learner, examples, pace, Selection(examples, measure))
    assert best == Best(step, "plain", values[step // 100 - 1])
    after = {one.example_id: one.scores["True"] for one in classify(learner, examples, pace)[0]}
    assert after == pytest.approx(answers[step // 100 - 1], abs=1e-4)
    assert all(
        after != pytest.approx(other, abs=1e-4) for place, other in enumerate(answers) if place != step // 100 - 1
    )


def test_a_loss_of_nan(learner: Learner, examples: list[Example[Label]], pace: Pace) -> None:
    learner.head.classifier[0].weight.data.fill_(float("nan"))  # type: ignore[index, operator, union-attr]
    with pytest.raises(VlbenchError, match="the loss is not a number at step 1: lower --lr"):
        run(learner, examples, pace)


def test_an_interrupted_probe(learner: Learner, examples: list[Example[Label]], pace: Pace) -> None:
    pace.interrupt.asked = True
    with pytest.raises(Interrupted):
        run(learner, examples, pace)
