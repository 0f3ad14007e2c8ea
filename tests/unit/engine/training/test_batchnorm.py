"""Batch norms in fine-tuning: fixed running statistics and trained weights, or live ones over all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench import catalog
from vlbench.core.backbone import Tensors, Textual, Visual
from vlbench.core.cards import Recipe
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.examples import Caption, Example, ImageRef, Query
from vlbench.core.progress import Silent
from vlbench.engine.batching.batches import training_blocks
from vlbench.engine.job import Job
from vlbench.engine.learner import Learner
from vlbench.engine.resources import make_resources, resource_spec
from vlbench.engine.runtime.environment import make_accelerator
from vlbench.engine.runtime.interrupt import Interrupt
from vlbench.engine.training.batchnorm import check_rows, synchronise_batch_norms
from vlbench.engine.training.checkpoint import Checkpoints
from vlbench.engine.training.finetune import Finetuning
from vlbench.engine.training.plan import Conduct, make_plan, training_units
from vlbench.heads.build import build_head
from vlbench.heads.dual import DualHead

RECIPE = Recipe(optimizer="adamw", lr=0.05, weight_decay=0.0, warmup=0.0, steps=3, batch_size=8)
EXAMPLES = [
    Example(str(n), Query((ImageRef(Path(), f"i{n % 40}"),), f"text {n}"), Caption(f"i{n % 40}"), str(n % 40))
    for n in range(70)
]


class Average(nn.Module):
    """A module that follows the mean of its inputs, as SOHO's dictionary does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, given: Tensor) -> Tensor:
        if self.training:
            self.mean.lerp_(given.detach().mean(), 0.5)
        return given + self.mean


class Normed(nn.Module):
    """Two towers; the image tower has a batch norm, dropout and a following average."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 6
        self.image, self.text = nn.Linear(5, 6), nn.Linear(5, 6)
        self.norm, self.dropout, self.average = nn.BatchNorm1d(6), nn.Dropout(0.1), Average()

    def following(self) -> Iterator[nn.Module]:
        yield self.average

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        return {"numbers": torch.stack([numbers(ref.key) for ref in refs])}

    def prepare_texts(self, texts: Sequence[str]) -> Tensors:
        return {"numbers": torch.stack([numbers(text) for text in texts])}

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        states = functional.normalize(self.dropout(self.average(self.norm(self.image(images["numbers"])))), dim=-1)
        return Visual(states[:, None], torch.ones(len(states), 1, dtype=torch.bool))

    def read(self, texts: Tensors) -> Textual:
        states = functional.normalize(self.text(texts["numbers"]), dim=-1)
        return Textual(states[:, None], torch.ones(len(states), 1, dtype=torch.bool))

    def fuse(self, seen: Visual, read: Textual) -> Any:
        raise AssertionError("two towers do not fuse")

    def embed_images(self, seen: Visual) -> Tensor:
        return seen.states[:, 0]

    def embed_texts(self, read: Textual) -> Tensor:
        return read.states[:, 0]


def numbers(name: str) -> Tensor:
    return 2 + torch.randn(5, generator=torch.Generator().manual_seed(sum(map(ord, name)) * 7919 + len(name)))


def learner_of(mean: float = 1.0) -> Learner:
    """mean: of the running statistics; 0 as a batch norm is made."""
    torch.manual_seed(0)
    learner = Learner(Normed(), DualHead())
    learner.backbone.norm.running_mean.fill_(mean)
    return learner


def started(learner: Learner, folder: Path, recipe: Recipe = RECIPE) -> Finetuning:
    plan = make_plan(recipe, training_units(recipe, EXAMPLES), 0)
    return Finetuning(learner, EXAMPLES, plan, make_accelerator("cpu", "float32", 1), Checkpoints(folder), 0, Conduct())


def run(training: Finetuning) -> None:
    training.run(None, lambda _: None, Silent(), Interrupt(), "finetuning")


@pytest.mark.parametrize("live", [False, True])
def test_modules_with_running_statistics_stay_in_eval_mode(live: bool) -> None:
    learner = learner_of()
    learner.live_batch_norm = live
    assert learner.train() is learner
    backbone = learner.backbone
    assert (learner.training, backbone.dropout.training) == (True, True)
    assert (backbone.norm.training, backbone.average.training) == (live, False)
    learner.eval()
    assert not any(module.training for module in learner.modules())


@pytest.mark.parametrize("kind", [None, "frozen", "live"])
def test_statistics_are_fixed_and_weights_are_trained(kind: Any, tmp_path: Path) -> None:
    learner = learner_of()
    norm = learner.backbone.norm
    weight = norm.weight.detach().clone()
    run(started(learner, tmp_path, RECIPE.model_copy(update={"batch_norm": kind})))
    assert not torch.equal(norm.weight, weight)
    assert (norm.running_mean.tolist() == [1.0] * 6) == (kind != "live")
    assert learner.backbone.average.mean == 0.0


def test_sohos_statistics_and_dictionary_are_fixed(make_job: Callable[..., Job], tmp_path: Path) -> None:
    job = make_job(task="vqa2", model="soho", checkpoint="none", train={"steps": 2, "batch_size": 8, "lr": 1e-3})
    backbone = catalog.load_model(job.card, "tiny", make_resources(resource_spec(job), Silent()))
    learner = Learner(backbone, build_head(job.task.card, job.card, backbone.width, job.labels, job.spec.train))
    for norm in learner.batch_norms():
        norm.running_mean.fill_(0.1)
    before = [buffer.clone() for buffer in learner.buffers()]
    moved = [parameter.detach().clone() for parameter in learner.parameters()]
    plan = make_plan(job.spec.train, training_units(job.spec.train, job.train), 0)
    accelerator = make_accelerator("cpu", "float32", 1)
    run(Finetuning(learner, job.train, plan, accelerator, Checkpoints(tmp_path), 0, Conduct()))
    assert all(torch.equal(buffer, kept) for buffer, kept in zip(learner.buffers(), before, strict=True))
    assert any(not torch.equal(one, kept) for one, kept in zip(learner.parameters(), moved, strict=True))


def test_without_weights_statistics_are_those_of_the_first_examples(tmp_path: Path) -> None:
    """Of 64 of the 70 examples, in two forward passes of 32, each image counting once in a pass."""
    learner = learner_of(mean=0.0)
    image = [parameter.detach().clone() for parameter in learner.backbone.image.parameters()]
    state = torch.get_rng_state()
    training = started(learner, tmp_path, RECIPE.model_copy(update={"steps": 9}))
    training.steps.begin(0, None, Silent())
    assert torch.equal(torch.get_rng_state(), state) and learner.training and not learner.backbone.norm.training
    order = [row for block in training_blocks([[row] for row in range(70)], 8, 9, 0) for row in block]
    means, variances = [], []
    for rows in (order[:32], order[32:64]):
        keys = list(dict.fromkeys(EXAMPLES[row].query.images[0].key for row in rows))
        states = functional.linear(torch.stack([numbers(key) for key in keys]), *image)
        means.append(states.mean(dim=0))
        variances.append(states.var(dim=0))
    norm = learner.backbone.norm
    assert torch.allclose(norm.running_mean, torch.stack(means).mean(dim=0), atol=1e-6)
    assert torch.allclose(norm.running_var, torch.stack(variances).mean(dim=0), atol=1e-6)
    assert (norm.momentum, norm.training) == (0.1, False) and learner.backbone.average.mean == 0.0


def test_live_batch_norms_need_a_model_that_has_some(tmp_path: Path) -> None:
    learner = learner_of()
    learner.backbone.norm = nn.Identity()
    with pytest.raises(
        VlbenchError, match=r"train\.batch_norm live is for models with batch norms, and Normed has none"
    ):
        started(learner, tmp_path, RECIPE.model_copy(update={"batch_norm": "live"}))


def test_every_process_needs_a_row() -> None:
    check_rows([[1, 2], [3, 4, 5]], 2)
    with pytest.raises(VlbenchError, match="each of 3 processes, and the smallest step has 2") as caught:
        check_rows([[1, 2], [3, 4, 5]], 3)
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(("device", "kind"), [("cuda", "SyncBatchNorm"), ("cpu", "CPUSyncBatchNorm")])
def test_several_processes_normalise_together(device: str, kind: str) -> None:
    """The same tensors under the same names; in evaluation mode the same answers."""
    learner, other = learner_of().eval(), learner_of().eval()
    weight = learner.backbone.norm.weight
    accelerator: Any = SimpleNamespace(num_processes=2, device=torch.device(device))
    synchronise_batch_norms(learner, accelerator)
    (norm,) = learner.batch_norms()
    assert type(norm).__name__ == kind and norm.weight is weight
    assert learner.state_dict().keys() == other.state_dict().keys()
    given = torch.randn(4, 6)
    assert torch.allclose(norm(given), other.backbone.norm(given), atol=1e-6)


def test_one_process_keeps_its_batch_norms() -> None:
    learner = learner_of()
    alone: Any = SimpleNamespace(num_processes=1, device=torch.device("cpu"))
    synchronise_batch_norms(learner, alone)
    assert type(learner.backbone.norm) is nn.BatchNorm1d
