"""Batches: each example once per epoch, each image and text prepared once, each pair of the right image and text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor

from vlbench.core.backbone import Features, Tensors, Textual, Visual
from vlbench.core.batch import Draw, PairBatch, PromptBatch
from vlbench.core.cards import HeadLayout, ScaleRange
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.engine.batching.batches import (
    answering_blocks,
    micro_blocks,
    related_rows,
    sequential_blocks,
    training_blocks,
)
from vlbench.heads.classify import ClassifyHead
from vlbench.heads.inputs import check_changes


class Recorder:
    """A backbone that notes what it is asked to prepare."""

    width = 1

    def __init__(self) -> None:
        self.refs: list[str] = []
        self.texts: list[str] = []

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        self.refs = [ref.key for ref in refs]
        return {"key": torch.tensor([float(ref.key) for ref in refs])}

    def prepare_texts(self, texts: Sequence[str]) -> Tensors:
        self.texts = list(texts)
        return {"length": torch.tensor([len(text) for text in texts])}

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        raise AssertionError("not asked for here")

    def read(self, texts: Tensors) -> Textual:
        raise AssertionError("not asked for here")

    def fuse(self, seen: Visual, read: Textual) -> Features:
        raise AssertionError("not asked for here")


def test_all_tensors_of_a_batch_are_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []

    def pin(tensor: Tensor) -> Tensor:
        pinned.append(id(tensor))
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    a, b, c, d, e, f = (torch.zeros(1) for _ in range(6))
    PairBatch(("id",), {"images": a}, b, {"texts": c}, d, e, f).pin_memory()
    assert pinned == [id(tensor) for tensor in (a, b, c, d, e, f)]
    pinned.clear()
    PromptBatch(("id",), {"prompts": a}, b).pin_memory()
    assert sorted(pinned) == sorted([id(a), id(b)])


def example(name: str, text: str, *keys: str) -> Example[Label]:
    return Example(name, Query(tuple(ImageRef(Path(key), key) for key in keys), text), Label("True"), name)


def collated(
    examples: Sequence[Example[Label]], rows: Sequence[int], backbone: Recorder, draw: Draw | None = None
) -> PairBatch:
    """The batch of a classifier."""
    batch = ClassifyHead(1, ("True", "False"), HeadLayout()).collate(examples, rows, backbone, draw)
    assert isinstance(batch, PairBatch)
    return batch


def drawn(block: Sequence[int], step: int, stream: str, augment: bool) -> Draw:
    return Draw(tuple(block), tuple(range(len(block))), step, stream, augment)


def test_each_image_and_text_is_prepared_once_per_batch() -> None:
    recorder = Recorder()
    examples = [example("a", "red", "1", "2"), example("b", "blue", "1", "2"), example("c", "red", "2", "1")]
    batch = collated(examples, range(3), recorder)
    assert recorder.texts == ["red", "blue"]
    assert recorder.refs == ["1", "2", "2", "1"]  # an image in another slot is another input
    assert batch.slots.tolist() == [0, 1, 0, 1]
    seen = [(recorder.refs[i], recorder.texts[t]) for i, t in zip(batch.image_rows, batch.text_rows, strict=True)]
    assert seen == [("1", "red"), ("2", "red"), ("1", "blue"), ("2", "blue"), ("2", "red"), ("1", "red")]
    assert batch.ids == ("a", "b", "c")
    assert batch.targets is None


def test_every_epoch_holds_every_example_once() -> None:
    units = [[row] for row in range(10)]
    blocks = training_blocks(units, 4, steps=6, seed=3)
    assert [len(block) for block in blocks] == [4, 4, 2, 4, 4, 2]
    for epoch in (blocks[:3], blocks[3:]):
        assert sorted(row for block in epoch for row in block) == list(range(10))
    assert blocks[:3] != blocks[3:]
    assert blocks == training_blocks(units, 4, steps=6, seed=3)
    assert blocks != training_blocks(units, 4, steps=6, seed=4)


def test_units_stay_in_one_block() -> None:
    units = [[0, 1, 2], [3, 4], [5], [6, 7, 8], [9, 10]]
    blocks = training_blocks(units, 4, steps=50, seed=0)
    for block in blocks:
        assert 0 < len(block) <= 4
        for unit in units:
            assert len(set(unit) & set(block)) in (0, len(unit))
    counted = Counter(row for block in blocks for row in block)
    assert max(counted.values()) - min(counted.values()) <= 1


def test_related_rows_share_groups_or_images() -> None:
    def of(name: str, group: str, *keys: str) -> Example[Label]:
        return Example(name, Query(tuple(ImageRef(Path(key), key) for key in keys), ""), Label("True"), group)

    examples = [of("a", "g", "1"), of("b", "h", "2"), of("c", "i", "3"), of("d", "g", "2"), of("e", "j", "4", "3")]
    assert related_rows(examples, 8) == [[0, 1, 3], [2, 4]]
    assert related_rows(examples, 2) == [[0, 1], [3], [2, 4]]


def test_accumulation_keeps_the_examples_of_a_step() -> None:
    blocks = [[5, 1, 4, 2, 9], [3, 0]]
    parts = micro_blocks(blocks, 2)
    assert len(parts) == 4
    assert sorted(parts[0] + parts[1]) == sorted(blocks[0])
    assert sorted(parts[2] + parts[3]) == sorted(blocks[1])


def test_prediction_keeps_the_order() -> None:
    assert sequential_blocks(5, 2) == [[0, 1], [2, 3], [4]]


class Changer(Recorder):
    """A backbone that augments images: it adds a random number to their keys."""

    def augmented(self, refs: Sequence[ImageRef], rng: Random) -> Tensors:
        return {"key": torch.tensor([float(ref.key) + rng.random() for ref in refs])}


def test_augmented_images_depend_on_the_block_alone() -> None:
    examples = [example(name, name, name) for name in "12345678"]
    blocks = [[0, 1], [2, 3], [4, 5], [6, 7]]

    def keys(first: int, stream: str = "0") -> list[list[float]]:
        numbers = range(first, len(blocks))
        batches = [collated(examples, blocks[at], Changer(), drawn(blocks[at], at, stream, True)) for at in numbers]
        return [batch.images["key"].tolist() for batch in batches]

    assert keys(0)[2:] == keys(2)  # training goes on with the changes it would have made
    assert keys(0) != keys(0, "1")
    assert collated(examples, blocks[0], Changer()).images["key"].tolist() == [1.0, 2.0]


def test_a_model_that_cannot_augment_images_is_rejected() -> None:
    with pytest.raises(VlbenchError, match=r"train\.augment .* Recorder cannot: set it to none"):
        check_changes(Recorder(), True, None)


class Scaler(Changer):
    """One that can also take images of random sizes: it notes the sizes asked for."""

    def rescaled(self, refs: Sequence[ImageRef], rng: Random, scales: ScaleRange) -> Tensors:
        return {"key": torch.tensor([float(rng.randint(scales.low, scales.high)) for _ in refs])}


def test_random_sizes_are_asked_for_in_training_only() -> None:
    examples = [example(name, name, name) for name in "12"]
    draw = Draw((0, 1), (0, 1), 0, "0", scales=ScaleRange(40, 80))
    sizes = collated(examples, [0, 1], Scaler(), draw).images["key"].tolist()
    assert all(40 <= size <= 80 for size in sizes)
    assert collated(examples, [0, 1], Scaler()).images["key"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("backbone", "augment", "said"),
    [
        (Changer(), False, r"train\.short_side \[40, 80\] is for models .*, and Changer does not: leave it out"),
        (Scaler(), True, "train.augment and train.short_side do not go together"),
    ],
)
def test_random_sizes_that_cannot_be_had_are_an_error(backbone: Recorder, augment: bool, said: str) -> None:
    with pytest.raises(VlbenchError, match=said):
        check_changes(backbone, augment, ScaleRange(40, 80, 100))


def test_questions_about_an_image_are_answered_together() -> None:
    spread = [Example(str(row), Query((ImageRef(Path(), "abc"[row % 3]),), ""), Label("yes"), "") for row in range(7)]
    assert answering_blocks(spread, 4) == [[0, 3, 6, 1], [4, 2, 5]]
    together = sorted(spread, key=lambda example: example.query.images[0].key)
    assert answering_blocks(together, 4) == sequential_blocks(7, 4)
    assert answering_blocks([], 4) == []
