"""BriVL as a backbone: pictures, boxes and texts to tensors, tensors to embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image, Resampling, fromarray
from torch import Tensor, nn

from vlbench.core.backbone import Features, Tensors, Textual, Visual
from vlbench.core.cards import ModelCard
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import ImageRef
from vlbench.core.validate import parse
from vlbench.data.images.image_cache import resized
from vlbench.data.resources import Resources
from vlbench.models.brivl.modeling import BriVLConfig, BriVLNetwork
from vlbench.models.layers.texts import check_length, prepared_texts

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The box around a whole picture."""


class BriVL(nn.Module):
    """The towers with their doors to the data; its shapes are those of `core.backbone`, with R = T = 1 and D = E.

    What was seen or read is one token, the embedding, which is all that a gallery needs to keep.

    Raises:
        VlbenchError: no regions in `resources`, or texts longer than the network has positions for.
    """

    def __init__(self, config: BriVLConfig, resources: Resources) -> None:
        super().__init__()
        check_length(resources.text, config.positions, "BriVL")
        if resources.regions is None:
            raise VlbenchError(
                "BriVL looks at boxes of a picture and was given none: give region features or an extractor"
            )
        self.config = config
        self.width = config.embedding
        self.text = resources.text
        self.pictures = resources.images
        self.regions = resources.regions
        self.network = BriVLNetwork(config)

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources) -> Self:
        """Build one of the card's sizes, untrained, with the vocabulary and the regions of `resources`.

        Raises:
            VlbenchError: faulty numbers in the card, or what the class refuses.
        """
        values = {**card.sizes[size].config, "vocab_size": resources.text.vocab_size}
        return cls(parse(BriVLConfig, values, f"size {size!r} of model {card.name!r}"), resources)

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        """The pictures, resized to squares, and their boxes, that around the whole picture last.

        Returns: pixels [N, 3, S, S] uint8; boxes [N, R, 4] float32, x as a share of the picture's width and y of its
            height; mask [N, R] bool, True where a box is real: at least the last one.

        Raises:
            DataError: a picture cannot be read.
        """
        side = self.config.side
        squares = (resized(self.pictures, ref, lambda _, __: (side, side), f"bilinear {side} square") for ref in refs)
        return self.arranged([fromarray(square) for square in squares], refs)

    def arranged(self, pictures: Sequence[Image], refs: Sequence[ImageRef]) -> Tensors:
        """What `prepare_images` returns, from pictures that were opened already."""
        side = self.config.side
        pixels = np.zeros((len(refs), side, side, 3), np.uint8)
        for row, picture in enumerate(pictures):
            pixels[row] = np.asarray(picture.resize((side, side), Resampling.BILINEAR))
        found = [self._boxes(ref) for ref in refs]
        counts = np.array([len(boxes) for boxes in found], np.int64)
        padded = np.zeros((len(refs), counts.max(initial=0), 4), np.float32)
        for row, boxes in enumerate(found):
            padded[row, : len(boxes)] = boxes
        return {
            "pixels": torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))),
            "boxes": torch.from_numpy(padded),
            "mask": torch.from_numpy(np.arange(padded.shape[1]) < counts[:, None]),
        }

    def _boxes(self, ref: ImageRef) -> NDArray[np.float32]:
        """The first `max_boxes` boxes as shares of the sides, and the whole picture's: [R, 4]."""
        regions = self.regions.get(ref)
        shares = regions.boxes[: self.config.max_boxes] / np.array([regions.width, regions.height] * 2)
        return np.concatenate([shares, [WHOLE]]).astype(np.float32)

    def prepare_texts(self, texts: Sequence[str]) -> Tensors:
        """The texts' tokens: ids [M, T] int64, mask [M, T] bool, True where a token is real.

        Cut to the longest text in this batch; with official sampling padded to the size's longest text, because the
        words then attend to padding.
        """
        return prepared_texts(self.text, texts, full=self.config.sampling == "official")

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """The picture's embedding as one token; `slot` does not count."""
        return Visual(*_one_token(self.network.image(images["pixels"], images["boxes"], images["mask"])))

    def read(self, texts: Tensors) -> Textual:
        """The text's embedding as one token."""
        return Textual(*_one_token(self.network.text(texts["ids"], texts["mask"])))

    def embed_images(self, seen: Visual) -> Tensor:
        """The pictures' embeddings [N, E]."""
        return seen.states[:, 0]

    def embed_texts(self, read: Textual) -> Tensor:
        """The texts' embeddings [M, E]."""
        return read.states[:, 0]

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """The product of both embeddings, E times as large, so that its mean is their dot product.

        The towers do not look at each other, so there is no more to it than that.
        """
        pooled = self.width * seen.states[:, 0] * read.states[:, 0]  # [P, E]
        return Features(pooled, read.states, seen.states, read.mask, seen.mask)


def _one_token(embedded: Tensor) -> tuple[Tensor, Tensor]:
    return embedded[:, None], torch.ones(len(embedded), 1, dtype=torch.bool, device=embedded.device)
