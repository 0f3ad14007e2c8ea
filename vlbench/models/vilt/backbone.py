"""ViLT as a backbone: preprocessing and forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from vlbench.core.backbone import Features, Tensors, Textual, Visual
from vlbench.core.examples import ImageRef
from vlbench.data.images.augment import randaugment
from vlbench.data.images.image_cache import resized
from vlbench.data.images.patches import Patches, cut, fitted, in_patches, stack
from vlbench.data.resources import Resources
from vlbench.models.layers.attention import with_keys
from vlbench.models.layers.image_sizes import cell_boxes
from vlbench.models.layers.texts import WordPieceBackbone
from vlbench.models.vilt.modeling import ViLTConfig, ViLTNetwork


class ViLT(WordPieceBackbone):
    """ViLT's network with its preprocessing; shapes are those of `core.backbone`, and R includes the class token."""

    title, config_type = "ViLT", ViLTConfig
    config: ViLTConfig

    def __init__(self, config: ViLTConfig, resources: Resources) -> None:
        super().__init__(config, resources)
        self.images = resources.images
        self.centres = True
        """Whether `fit` turns centring on; pretraining from scratch does not centre pixels."""
        self.network = ViLTNetwork(config)

    @torch.no_grad()
    def fit(self, refs: Sequence[ImageRef]) -> None:
        """Turn on centring (pixels minus the mean of their image) if the size uses it; `refs` are not read."""
        if self.network.centred is not None and self.centres:
            self.network.centred.fill_(1)

    def spared(self) -> tuple[str, ...]:
        """The buffer that turns on centring: weights without it were trained on pixels that are not centred."""
        return ("network.centred",)

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        """Cut N images into patches, padded with zeros to the largest number of patches in this batch.

        Returns: patches [N, R, 3 * P * P] uint8; places [N, R] int64, counted row by row; grids [N, 2] int64, rows and
            columns; mask [N, R] bool, True where a patch is real; and as `with_keys`.

        Raises DataError: an image cannot be read.
        """
        return self.collate([self._cut(ref) for ref in refs])

    def augmented(self, refs: Sequence[ImageRef], rng: Random) -> Tensors:
        """As `prepare_images`, after RandAugment; the result for an image does not depend on the other images."""
        seed = rng.random()
        return self.collate([self._cut(ref, Random(f"{seed}/{ref.key}")) for ref in refs])

    def collate(self, images: Sequence[Patches]) -> Tensors:
        """The result of `prepare_images` for images that are already cut into patches."""
        stacked = stack(images, self.config.patch)
        arrays = {"patches": stacked.pixels, "places": stacked.places, "grids": stacked.grids, "mask": stacked.mask}
        return with_keys({name: torch.from_numpy(array) for name, array in arrays.items()})

    def _cut(self, ref: ImageRef, rng: Random | None = None) -> Patches:
        sides = (self.config.short_side, self.config.long_side, self.config.patch)
        if rng is not None:
            return cut(randaugment(self.images.open(ref), rng), *sides)
        rule = "bicubic {} {} {}".format(*sides)
        pixels = resized(self.images, ref, lambda width, height: fitted(width, height, *sides), rule)
        return in_patches(pixels, self.config.patch)

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """Patch projection, positions, and the type of the image's slot: [N, 1 + R, D], the class token first."""
        projected = self.network.project(images["patches"], images["mask"])
        states = self.network.place(projected, images["places"], images["grids"], slot)
        return Visual(states, with_class(images["mask"]), "keys" in images)

    def read(self, texts: Tensors) -> Textual:
        """Text embeddings: [M, T, D]."""
        return Textual(self.network.read(texts["ids"]), texts["mask"], "keys" in texts)

    def fuse(self, seen: Visual, read: Textual, pooled_only: bool = False) -> Features:
        """The transformer over text and image, and the pooler over [CLS]."""
        given = read.states, read.keys, seen.states, seen.keys
        if pooled_only and not self.training:
            return Features.of_pooled(self.network.pool(*given))
        pooled, text, visual = self.network.fuse(*given)
        return Features(pooled, text, visual, read.mask, seen.mask)

    def attend(self, seen: Visual, read: Textual) -> Tensor:
        """The attention of [CLS] to the patches in the last block: [P, 1 + R], 0 for the class token."""
        return self.network.attend(read.states, read.mask, seen.states, seen.mask)

    def places(self, images: Tensors) -> Tensor:
        """The boxes of the patches [N, 1 + R, 4] in [0, 1]; zeros for the class token and padding."""
        boxes = cell_boxes(images["places"], images["grids"]) * images["mask"][:, :, None]
        return functional.pad(boxes, (0, 0, 1, 0))


def with_class(mask: Tensor) -> Tensor:
    """Prepend the class token to a mask of patches [N, R]: [N, 1 + R]."""
    return functional.pad(mask, (1, 0), value=True)
