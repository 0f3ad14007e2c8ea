"""Running out of memory: smaller parts of the same work, and an error when nothing is left to halve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.examples import Example, ImageRef, Query
from vlbench.engine.runtime.memory import Undo, fits, heaviest, within_memory


def limited_to(most: int, asked: list[list[int]]) -> Callable[[Sequence[int]], list[int]]:
    def work(rows: Sequence[int]) -> list[int]:
        asked.append(list(rows))
        if len(rows) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [row * row for row in rows]

    return work


def test_halves_and_their_halves() -> None:
    asked, said = list[list[int]](), list[str]()
    assert within_memory(range(3, 10), limited_to(2, asked), said.append, "predicting") == [9, 16, 25, 36, 49, 64, 81]
    assert [len(rows) for rows in asked] == [7, 4, 2, 2, 3, 2, 1]
    assert said[0] == "predicting: out of memory with 7 examples per forward pass, continuing with 4"


def test_a_single_example_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(VlbenchError, match="out of memory predicting a single example: use a smaller") as caught:
        within_memory([1, 2], limited_to(0, []), lambda _: None, "predicting")
    assert caught.value.exit_code == ExitCode.OUT_OF_MEMORY == 9


def test_other_errors_are_left_alone() -> None:
    def work(rows: Sequence[int]) -> list[int]:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        within_memory([1, 2], work, lambda _: None, "predicting")


def example(name: str, text: str, *images: str) -> Example[None]:
    refs = tuple(ImageRef(Path(f"{key}.png"), key) for key in images)
    return Example(id=name, query=Query(refs, text), reference=None, group=name)


def test_the_heaviest_have_most_images_then_the_longest_texts_and_share_no_image() -> None:
    examples = [
        example("short", "a", "1"),
        example("long", "a red square", "2"),
        example("same image", "a red squar", "2"),
        example("two", "a", "3", "4"),
        example("middle", "a red", "5"),
    ]
    assert [examples[row].id for row in heaviest(examples, 4)] == ["two", "long", "middle", "short"]
    assert [examples[row].id for row in heaviest(examples, 9)][-1] == "same image"


class Counting(nn.Module):
    """Its buffer counts passes; dropout draws."""

    passes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(3, 3), nn.Dropout(0.5)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.passes += 1
        return torch.as_tensor(self.dropout(self.linear(inputs)))


@pytest.mark.parametrize("suffices", [True, False])
def test_a_trial_changes_no_state(suffices: bool) -> None:
    module = Counting()

    def work() -> None:
        module(torch.ones(2, 3)).sum().backward()
        if not suffices:
            raise torch.OutOfMemoryError("CUDA out of memory")

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert fits(module, work, 1) is suffices
    assert torch.equal(torch.rand(3), expected)
    assert float(module.passes) == 0
    assert all(parameter.grad is None for parameter in module.parameters())


def test_undo_copies_no_buffer_of_a_part_in_evaluation_mode() -> None:
    module = nn.Sequential(Counting(), Counting())
    module.train()[1].eval()
    assert [buffer for buffer, _ in Undo(module).buffers] == [module[0].passes]


def test_undo() -> None:
    module = Counting()
    undo = Undo(module)
    first = module(torch.ones(2, 3))
    undo()
    assert float(module.passes) == 0
    assert torch.equal(module(torch.ones(2, 3)), first)
