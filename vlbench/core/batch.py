"""The input of one forward pass, in the two forms in which models take it, and what is drawn at random for training.

Shapes: B examples, P pairs of an image and a text, N distinct (image, slot), M distinct texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, TypeAlias

from vlbench.core.backbone import Tensors
from vlbench.core.cards import ScaleRange

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Change: TypeAlias = "Callable[[Tensor], Tensor]"
"""What is done to every tensor of a batch."""


@dataclass(frozen=True)
class PairBatch:
    """Pairs of images and texts, of which each distinct image and text is prepared and encoded once.

    ids: of the B examples. images, texts: prepared tensors of the N images and M texts. slots [N]: the place of each
    image in its query. image_rows, text_rows [P]: the image and the text of each pair, example by example. targets: as
    the head makes them, None outside training.
    """

    ids: tuple[str, ...]
    images: Tensors
    slots: Tensor
    texts: Tensors
    image_rows: Tensor
    text_rows: Tensor
    targets: Tensor | None = None

    def to(self, device: torch.device) -> PairBatch:
        """The same batch with its tensors on `device`."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> PairBatch:
        """The same batch in pinned memory; the data loader calls it when there is a GPU."""
        return self._mapped(lambda tensor: tensor.pin_memory())

    def _mapped(self, change: Change) -> PairBatch:
        return PairBatch(
            ids=self.ids,
            images=_changed(self.images, change),
            slots=change(self.slots),
            texts=_changed(self.texts, change),
            image_rows=change(self.image_rows),
            text_rows=change(self.text_rows),
            targets=None if self.targets is None else change(self.targets),
        )


@dataclass(frozen=True)
class PromptBatch:
    """Prompts of a generative model.

    ids: of the B examples. prompts: their tensors, as the model prepares them, with the answers where these are
    learned. targets: as the head makes them, None outside training.
    """

    ids: tuple[str, ...]
    prompts: Tensors
    targets: Tensor | None = None

    def to(self, device: torch.device) -> PromptBatch:
        """The same batch with its tensors on `device`."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> PromptBatch:
        """The same batch in pinned memory; the data loader calls it when there is a GPU."""
        return self._mapped(lambda tensor: tensor.pin_memory())

    def _mapped(self, change: Change) -> PromptBatch:
        targets = None if self.targets is None else change(self.targets)
        return PromptBatch(self.ids, _changed(self.prompts, change), targets)


Batch: TypeAlias = PairBatch | PromptBatch
"""The input of one forward pass."""


@dataclass(frozen=True)
class Draw:
    """What one forward pass of training draws at random, the same however its optimizer step is cut into passes.

    block: the rows of the training examples in the step. places: those of the block that the pass takes. step: its
    number in the random stream named `stream`. augment: whether images are augmented. scales: the range of random
    image sizes; None keeps the size of the backbone.
    """

    block: tuple[int, ...]
    places: tuple[int, ...]
    step: int = 0
    stream: str = ""
    augment: bool = False
    scales: ScaleRange | None = None

    def query_rng(self) -> Random:
        """The random generator for the negatives of the whole step."""
        return Random(f"{self.stream}/{self.step}")

    def image_rng(self) -> Random:
        """The random generator for changes of images."""
        return Random(f"{self.stream}/pictures/{self.step}")


def whole_block(rows: range, stream: str) -> Draw:
    """The draw of a step that is one forward pass over all of its rows."""
    return Draw(tuple(rows), tuple(range(len(rows))), stream=stream)


def _changed(tensors: Mapping[str, Tensor], change: Change) -> Tensors:
    return {name: change(value) for name, value in tensors.items()}
