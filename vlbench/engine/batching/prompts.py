"""Batches of a model that writes: each example one prompt, with its answer where that is learned.

Shapes: B examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from vlbench.core.backbone import Generator, Tensors
from vlbench.core.examples import Example
from vlbench.heads.generate import GenerateHead


@dataclass(frozen=True)
class PromptBatch:
    """One forward's input: the tensors of B prompts, as the model prepares them, and the ids of the examples."""

    ids: tuple[str, ...]
    prompts: Tensors

    def to(self, device: torch.device) -> PromptBatch:
        """The same batch with its tensors on `device`."""
        return PromptBatch(
            self.ids, {name: value.to(device, non_blocking=True) for name, value in self.prompts.items()}
        )

    def pin_memory(self) -> PromptBatch:
        """The same batch in pinned memory; the data loader calls it when there is a GPU."""
        return PromptBatch(self.ids, {name: value.pin_memory() for name, value in self.prompts.items()})


class PromptBatches(Dataset[PromptBatch]):
    """Blocks of example indices, each turned into a PromptBatch when asked for. learned: with the answers."""

    def __init__(
        self,
        examples: Sequence[Example[Any]],
        blocks: Sequence[Sequence[int]],
        model: Generator,
        head: GenerateHead,
        learned: bool = False,
    ) -> None:
        self.examples, self.blocks = examples, blocks
        self.model, self.head, self.learned = model, head, learned

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> PromptBatch:
        block = [self.examples[row] for row in self.blocks[index]]
        answers = [self.head.target(example) for example in block] if self.learned else None
        prompts = self.model.prepare_prompts([self.head.prompt(example.query) for example in block], answers)
        return PromptBatch(tuple(example.id for example in block), prompts)
