"""BriVL as a backbone: preprocessing and embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image, Resampling, fromarray
from torch import Tensor

from vlbench.core.backbone import Features, Tensors, Textual, Visual
from vlbench.core.examples import ImageRef
from vlbench.data.images.image_cache import resized
from vlbench.data.resources import Resources
from vlbench.models.brivl.modeling import BriVLConfig, BriVLNetwork
from vlbench.models.layers.attention import unpadded
from vlbench.models.layers.regions import padded_rows, region_source, relative_boxes
from vlbench.models.layers.texts import WordPieceBackbone

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The box around a whole image."""


class BriVL(WordPieceBackbone):
    """BriVL's towers with their preprocessing; shapes are those of `core.backbone`, with R = T = 1 and D = E.

    An image or a text becomes one token, its embedding, which is all that a gallery needs to keep. Raises VlbenchError:
    no regions in `resources`.
    """

    title, config_type = "BriVL", BriVLConfig
    config: BriVLConfig

    def __init__(self, config: BriVLConfig, resources: Resources) -> None:
        super().__init__(config, resources)
        self.width = config.embedding
        self.pads_texts = config.sampling == "official"  # the text tower then attends to padding
        self.images = resources.images
        self.regions = region_source(resources, "BriVL")
        self.network = BriVLNetwork(config)

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        """Resize N images to squares and load their boxes; the box around the whole image is last.

        Returns: pixels [N, 3, S, S] uint8; boxes [N, R, 4] float32 in [0, 1], relative to the image's width and height;
            mask [N, R] bool, True where a box is real.

        Raises DataError: an image cannot be read.
        """
        side = self.config.side
        squares = (resized(self.images, ref, lambda _, __: (side, side), f"bilinear {side} square") for ref in refs)
        return self.collate([fromarray(square) for square in squares], refs)

    def collate(self, images: Sequence[Image], refs: Sequence[ImageRef]) -> Tensors:
        """The result of `prepare_images` for images that are already open."""
        side = self.config.side
        pixels = np.zeros((len(refs), side, side, 3), np.uint8)
        for row, image in enumerate(images):
            pixels[row] = np.asarray(image.resize((side, side), Resampling.BILINEAR))
        boxes, mask = padded_rows([self._boxes(ref) for ref in refs], 4)
        channels_first = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        return {"pixels": torch.from_numpy(channels_first), "boxes": boxes, "mask": mask}

    def _boxes(self, ref: ImageRef) -> NDArray[np.float32]:
        """The first `max_boxes` relative boxes, and the box of the whole image: [R, 4]."""
        boxes = relative_boxes(self.regions.get(ref))[: self.config.max_boxes]
        return np.concatenate([boxes, np.array([WHOLE], np.float32)])

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """The image embedding as one token [N, 1, E]; `slot` is unused."""
        return Visual(*unpadded(self.network.image(images["pixels"], images["boxes"], images["mask"])[:, None]))

    def read(self, texts: Tensors) -> Textual:
        """The text embedding as one token [M, 1, E]."""
        return Textual(*unpadded(self.network.text(texts["ids"], texts["mask"])[:, None]))

    def embed_images(self, seen: Visual) -> Tensor:
        """The image embeddings [N, E], of length 1."""
        return seen.states[:, 0]

    def embed_texts(self, read: Textual) -> Tensor:
        """The text embeddings [M, E], of length 1."""
        return read.states[:, 0]

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """The elementwise product of both embeddings times E, so that its mean is their dot product."""
        pooled = self.width * seen.states[:, 0] * read.states[:, 0]  # [P, E]
        return Features(pooled, read.states, seen.states, read.mask, seen.mask)
