"""The contrastive loss over an optimizer step against one graph over all of its pairs, however the step is split."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Tensors, Textual, Visual
from vlbench.core.batch import Draw
from vlbench.core.cards import Recipe
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.examples import Caption, Example, ImageRef, Query
from vlbench.core.progress import Silent
from vlbench.engine.batching.batches import epoch_blocks, training_blocks
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.environment import make_accelerator
from vlbench.engine.runtime.interrupt import Interrupt, Interrupted
from vlbench.engine.training.checkpoint import Checkpoints
from vlbench.engine.training.contrast import Part, contrast
from vlbench.engine.training.finetune import Finetuning
from vlbench.engine.training.micro_batches import gathered_places, shares, training_batches
from vlbench.engine.training.optimizer import make_optimizer, make_schedule
from vlbench.engine.training.plan import Conduct, make_plan, training_units
from vlbench.heads.dual import DualHead
from vlbench.heads.forward import encode_pairs

RECIPE = Recipe(optimizer="adamw", lr=0.01, weight_decay=0.01, warmup=0.0, clip=1.0, steps=5, batch_size=8)


class Towers(nn.Module):
    """Two linear towers with dropout over vectors that represent images and texts."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.width = 6
        self.image, self.text = nn.Linear(5, 6), nn.Linear(5, 6)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("seen", torch.zeros(()))

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        return {"numbers": torch.stack([numbers(ref.key) for ref in refs])}

    def prepare_texts(self, texts: Sequence[str]) -> Tensors:
        return {"numbers": torch.stack([numbers(text) for text in texts])}

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        return Visual(*self._token(self.image, images["numbers"]))

    def read(self, texts: Tensors) -> Textual:
        return Textual(*self._token(self.text, texts["numbers"]))

    def embed_images(self, seen: Visual) -> Tensor:
        return seen.states[:, 0]

    def embed_texts(self, read: Textual) -> Tensor:
        return read.states[:, 0]

    def _token(self, tower: nn.Module, given: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:
            self.seen += 1  # what a forward pass in training mode moves
        states = functional.normalize(self.dropout(tower(given)), dim=-1)[:, None]
        return states, torch.ones(len(states), 1, dtype=torch.bool)


def numbers(name: str) -> Tensor:
    return torch.randn(5, generator=torch.Generator().manual_seed(sum(map(ord, name)) * 7919 + len(name)))


def captions(texts: int, images: int) -> list[Example[Caption]]:
    """Texts assigned to images in turn, so that the texts of an image are in different parts."""
    return [
        Example(
            str(n),
            Query((ImageRef(Path(), f"i{n % images}"),), f"text {n}"),
            Caption(f"i{n % images}"),
            str(n % images),
        )
        for n in range(texts)
    ]


def learner_of(dropout: float, seed: int = 0) -> Learner:
    torch.manual_seed(seed)
    return Learner(Towers(dropout), DualHead())


def weights(learner: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in learner.parameters()]


def by_hand(embeddings: tuple[Tensor, Tensor], log_scale: Tensor, images: Sequence[str]) -> Tensor:
    """The loss of CLIP's paper, query by query; texts of one image share the probability."""
    logits = log_scale.exp() * embeddings[0] @ embeddings[1].T
    total = torch.zeros(())
    for table in (logits, logits.T):
        for row, image in enumerate(images):
            right = [place for place, other in enumerate(images) if other == image]
            total = total - table[row].log_softmax(dim=0)[right].mean()
    return total / (2 * len(images))


def parts_of(learner: Learner, examples: Sequence[Example[Any]], block: list[int], accumulation: int) -> list[Part]:
    of = shares(block, 0, accumulation, 0, 1)
    batches = training_batches(examples, of, learner, "0")
    return [Part(batches[index], share) for index, share in enumerate(of)]


def contrasted(learner: Learner, examples: Sequence[Example[Any]], block: list[int], accumulation: int) -> float:
    targets = learner.head.targets([examples[row] for row in block])
    order = gathered_places(len(block), accumulation, 1)
    parts = parts_of(learner, examples, block, accumulation)
    return contrast(make_accelerator("cpu", "float32", 1), learner, learner, parts, order, targets)


@pytest.mark.parametrize("accumulation", [2, 3, 11])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_are_those_of_one_graph_over_the_step(accumulation: int, dropout: float) -> None:
    """With dropout: each part's mask is drawn once and is the same in the second pass."""
    examples, block = captions(13, 5), [12, 3, 7, 0, 5, 9, 2, 11, 4, 1, 8]
    learner, other = learner_of(dropout).train(), learner_of(dropout).train()
    torch.manual_seed(5)
    images, texts, rows = [], [], []
    for part in parts_of(other, examples, block, accumulation):
        seen, read = encode_pairs(other.model, part.batch)
        images.append(other.backbone.embed_images(seen))
        texts.append(other.backbone.embed_texts(read))
        rows += part.share.rows
    loss = by_hand((torch.cat(images), torch.cat(texts)), other.head.log_scale, [f"i{row % 5}" for row in rows])
    loss.backward()
    after = torch.get_rng_state()

    torch.manual_seed(5)
    assert contrasted(learner, examples, block, accumulation) == pytest.approx(loss.item(), abs=1e-6)
    for own, expected in zip(learner.parameters(), other.parameters(), strict=True):
        assert own.grad is not None and expected.grad is not None and expected.grad.abs().sum() > 0
        assert torch.allclose(own.grad, expected.grad, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), after)  # later steps draw as after a single pass
    assert learner.backbone.seen == other.backbone.seen  # nothing moves twice


class Scaler:
    """Scales losses as the one that float16 needs on a GPU."""

    def get_scale(self) -> float:
        return 1024.0

    def scale(self, loss: Tensor) -> Tensor:
        return loss * 1024


@pytest.mark.parametrize(("dtype", "scaler", "least"), [("float32", Scaler(), 0.9999999), ("bfloat16", None, 0.999)])
def test_gradients_carry_over_scaling_and_lower_precision(dtype: Any, scaler: Scaler | None, least: float) -> None:
    """A gradient scaler changes only the scale; bfloat16 only the last bits of embeddings and logits."""
    examples, block = captions(13, 5), list(range(12))
    plain, learner, accelerator = learner_of(0.0).train(), learner_of(0.0).train(), make_accelerator("cpu", dtype, 1)
    contrasted(plain, examples, block, 4)
    accelerator.scaler = scaler
    targets, order = learner.head.targets([examples[row] for row in block]), gathered_places(12, 4, 1)
    contrast(accelerator, learner, learner, parts_of(learner, examples, block, 4), order, targets)
    found, expected = (torch.cat([one.grad.flatten() for one in of.parameters()]) for of in (learner, plain))
    assert functional.cosine_similarity(found, expected, dim=0) > least
    assert float(found.norm() / expected.norm()) == pytest.approx(
        1024 if scaler else 1, rel=0.02 if not scaler else 1e-5
    )


def finetuning(
    folder: Path, recipe: Recipe, dropout: float, texts: int = 30, images: int = 7, **how: Any
) -> Finetuning:
    learner, examples = learner_of(dropout), captions(texts, images)
    plan = make_plan(recipe, training_units(recipe, examples), 0, learner.head.contrasted_images(examples))
    accelerator = make_accelerator("cpu", "float32", 1)
    return Finetuning(learner, examples, plan, accelerator, Checkpoints(folder), 0, Conduct(**how))


def run(training: Finetuning, log: list[Any] | None = None) -> list[Any]:
    lines: list[Any] = [] if log is None else log
    training.run(None, lines.append, Silent(), Interrupt(), "finetuning")
    return lines


def test_one_part_in_one_process_equals_a_plain_loop_bit_for_bit(tmp_path: Path) -> None:
    """Losses and weights, with dropout, against a loop without parts."""
    training = finetuning(tmp_path, RECIPE, dropout=0.3)
    torch.manual_seed(11)
    log = run(training)

    learner, examples = learner_of(0.3), captions(30, 7)
    optimizer = make_optimizer(learner, learner.backbone, RECIPE)
    schedule = make_schedule(optimizer, 5, RECIPE)
    losses = []
    torch.manual_seed(11)
    learner.train()
    for block in training_blocks([[row] for row in range(30)], 8, 5, 0):
        batch = learner.head.collate(examples, block, learner.model, Draw(tuple(block), tuple(range(len(block)))))
        seen = learner.backbone.see(batch.images, batch.slots).states[batch.image_rows, 0]
        read = learner.backbone.read(batch.texts).states[batch.text_rows, 0]
        loss = learner.head.loss(learner.head(seen, read), batch.targets)
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert [line["loss"] for line in log] == losses
    for own, expected in zip(weights(training.learner), weights(learner), strict=True):
        assert torch.equal(own, expected)


@pytest.mark.parametrize("accumulation", [2, 8])
def test_losses_and_norms_do_not_depend_on_accumulation(accumulation: int, tmp_path: Path) -> None:
    whole = run(finetuning(tmp_path / "whole", RECIPE, 0.0))
    parts = run(finetuning(tmp_path / "parts", RECIPE.model_copy(update={"accumulation": accumulation}), 0.0))
    assert whole[0]["loss"] > 0.5
    assert [line["loss"] for line in parts] == pytest.approx([line["loss"] for line in whole], abs=1e-5)
    assert [line["grad_norm"] for line in parts] == pytest.approx([line["grad_norm"] for line in whole], rel=1e-4)


@pytest.mark.parametrize("late", [0, 3])
def test_an_automatic_batch_keeps_the_loss(late: int, tmp_path: Path) -> None:
    """One example per forward pass, found beforehand or when memory runs out at a later step."""
    whole = run(finetuning(tmp_path / "whole", RECIPE, 0.0))
    training = finetuning(tmp_path / "auto", RECIPE, 0.0, auto_batch=True)
    forward, calls = training.learner.forward, []

    def limited(batch: Any, embeds: bool = False) -> Any:
        calls.append(len(batch.ids))
        if len(calls) > late and len(batch.ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(batch, embeds)

    training.learner.forward = limited  # type: ignore[method-assign]
    log = run(training)
    assert training.steps.accumulation == 8
    assert [line["loss"] for line in log] == pytest.approx([line["loss"] for line in whole], abs=1e-5)


def test_a_last_block_with_one_image_joins_the_block_before(tmp_path: Path) -> None:
    units, images = [[row] for row in range(9)], ["a", "b", "c"] * 3
    plain = [epoch_blocks(units, 4, seed, 0) for seed in range(40)]
    joined = [epoch_blocks(units, 4, seed, 0, images) for seed in range(40)]
    assert all([len(block) for block in blocks] == [4, 4, 1] for blocks in plain)
    assert all([len(block) for block in blocks] == [4, 5] for blocks in joined)
    assert [list(chain(*blocks)) for blocks in joined] == [list(chain(*blocks)) for blocks in plain]
    two = [["a", "b"][row % 2] for row in range(10)]
    ends = [epoch_blocks([[row] for row in range(10)], 4, seed, 0, two)[-1] for seed in range(40)]
    assert {len(end) for end in ends} == {2, 6}  # two texts of one image join as well, of two images do not
    assert all(len({two[row] for row in end}) == 2 for end in ends)


def test_a_joined_block_is_counted_and_resumed(tmp_path: Path) -> None:
    """9 texts in batches of 4 are 2 steps per epoch, and an interruption changes nothing."""
    recipe = RECIPE.model_copy(update={"steps": None, "epochs": 2, "batch_size": 4})
    whole = finetuning(tmp_path / "whole", recipe, 0.3, texts=9, images=3)
    assert whole.plan.steps == 4 and [len(block) for block in whole.steps.blocks] == [4, 5, 4, 5]
    log, stopped, lines = run(whole), finetuning(tmp_path / "stopped", recipe, 0.3, texts=9, images=3), list[Any]()
    interrupt = Interrupt()

    def note(line: Any) -> None:
        lines.append(line)
        interrupt.asked = len(lines) == 1

    with pytest.raises(Interrupted):
        stopped.run(None, note, Silent(), interrupt, "finetuning")
    run(finetuning(tmp_path / "stopped", recipe, 0.3, texts=9, images=3), lines)
    assert [line["loss"] for line in lines] == [line["loss"] for line in log]


@pytest.mark.parametrize(
    ("batch_size", "images", "batches"),
    [(1, 7, "shuffled"), (8, 1, "shuffled"), (4, 7, "related"), (40, 1, "shuffled")],
)
def test_a_step_without_negatives_is_rejected(batch_size: int, images: int, batches: Any, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"batch_size": batch_size, "batches": batches})
    with pytest.raises(VlbenchError, match=r"step 1 of training holds one image alone \('i\d', texts: ") as caught:
        finetuning(tmp_path, recipe, 0.0, images=images)
    assert caught.value.exit_code == ExitCode.USAGE


def test_gathered_places_are_ordered_by_rank() -> None:
    dealt = partial(shares, range(7), 0, 2)
    expected = [place for rank in range(3) for share in dealt(rank, 3) if share.weight for place in share.places]
    assert gathered_places(7, 2, 3) == expected and sorted(expected) == list(range(7))
    assert gathered_places(3, 2, 4) == [0, 1, 2]  # the fourth process has nothing to do
