"""ViLT as a backbone: pictures and texts to tensors, tensors to features."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Features, Tensors, Textual, Visual
from vlbench.core.cards import ModelCard
from vlbench.core.examples import ImageRef
from vlbench.core.validate import parse
from vlbench.data.images.augment import randaugment
from vlbench.data.images.image_cache import resized
from vlbench.data.images.patches import Patches, cut, fitted, in_patches, stack
from vlbench.data.resources import Resources
from vlbench.models.layers.image_sizes import cell_boxes
from vlbench.models.layers.texts import check_length, prepared_texts
from vlbench.models.vilt.modeling import ViLTConfig, ViLTNetwork


class ViLT(nn.Module):
    """The network with its doors to the data; its shapes are those of `core.backbone`. R counts the class token too.

    Raises:
        VlbenchError: texts longer than the network has positions for.
    """

    def __init__(self, config: ViLTConfig, resources: Resources) -> None:
        super().__init__()
        check_length(resources.text, config.positions, "ViLT")
        self.config = config
        self.width = config.width
        self.text = resources.text
        self.pictures = resources.images
        self.centres = True
        """Whether `fit` centres pixels: pretraining from scratch does without it."""
        self.network = ViLTNetwork(config)

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources) -> Self:
        """Build one of the card's sizes, untrained, with the vocabulary of `resources`.

        Raises:
            VlbenchError: faulty numbers in the card, or what the class refuses.
        """
        values = {**card.sizes[size].config, "vocab_size": resources.text.vocab_size}
        return cls(parse(ViLTConfig, values, f"size {size!r} of model {card.name!r}"), resources)

    @torch.no_grad()
    def fit(self, refs: Sequence[ImageRef]) -> None:
        """Take pixels less the mean of their image from now on, where the size does so; there is nothing to measure."""
        if self.network.centred is not None and self.centres:
            self.network.centred.fill_(1)

    def spared(self) -> tuple[str, ...]:
        """What says whether pixels are centred: weights without it were trained on pixels that are not."""
        return ("network.centred",)

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        """The pictures' patches, all of them, padded with zeros to the largest number in this batch.

        Returns: patches [N, R, 3 * P * P] uint8; places [N, R] int64, counted row by row; grids [N, 2] int64, rows and
            columns; mask [N, R] bool, True where a patch is real.

        Raises:
            DataError: a picture cannot be read.
        """
        return self.arranged([self._cut(ref) for ref in refs])

    def augmented(self, refs: Sequence[ImageRef], rng: Random) -> Tensors:
        """As `prepare_images`, of pictures changed by RandAugment, each alike whatever is beside it."""
        chance = rng.random()
        return self.arranged([self._cut(ref, Random(f"{chance}/{ref.key}")) for ref in refs])

    def arranged(self, pictures: Sequence[Patches]) -> Tensors:
        """What `prepare_images` returns, from pictures that were cut already."""
        stacked = stack(pictures, self.config.patch)
        return {
            "patches": torch.from_numpy(stacked.pixels),
            "places": torch.from_numpy(stacked.places),
            "grids": torch.from_numpy(stacked.grids),
            "mask": torch.from_numpy(stacked.mask),
        }

    def _cut(self, ref: ImageRef, rng: Random | None = None) -> Patches:
        sides = (self.config.short_side, self.config.long_side, self.config.patch)
        if rng is not None:
            return cut(randaugment(self.pictures.open(ref), rng), *sides)
        rule = "bicubic {} {} {}".format(*sides)
        pixels = resized(self.pictures, ref, lambda width, height: fitted(width, height, *sides), rule)
        return in_patches(pixels, self.config.patch)

    def prepare_texts(self, texts: Sequence[str]) -> Tensors:
        """The texts' tokens, cut to the longest text in this batch: ids [M, T] int64, mask [M, T] bool."""
        return prepared_texts(self.text, texts)

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """Projection, positions, and the type of the picture's slot: [N, 1 + R, D], the class token first."""
        projected = self.network.project(images["patches"], images["mask"])
        states = self.network.place(projected, images["places"], images["grids"], slot)
        return Visual(states, with_class(images["mask"]))

    def read(self, texts: Tensors) -> Textual:
        """Text embeddings."""
        return Textual(self.network.read(texts["ids"]), texts["mask"])

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """The transformer over both; the pooler looks at [CLS]."""
        pooled, text, visual = self.network.fuse(read.states, read.mask, seen.states, seen.mask)
        return Features(pooled, text, visual, read.mask, seen.mask)

    def attend(self, seen: Visual, read: Textual) -> Tensor:
        """What [CLS] attends to among the patches in the last block: [P, 1 + R], 0 for the class token."""
        return self.network.attend(read.states, read.mask, seen.states, seen.mask)

    def places(self, images: Tensors) -> Tensor:
        """The cells of the pictures' grids of patches, [N, 1 + R, 4], zeros for the class token and padding."""
        boxes = cell_boxes(images["places"], images["grids"]) * images["mask"][:, :, None]
        return functional.pad(boxes, (0, 0, 1, 0))


def with_class(mask: Tensor) -> Tensor:
    """The mask [N, R] of patches with the class token's place before them: [N, 1 + R]."""
    return functional.pad(mask, (1, 0), value=True)
