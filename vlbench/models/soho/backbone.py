"""SOHO as a backbone: preprocessing and forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from vlbench.core.backbone import Features, Tensors, Textual, Visual
from vlbench.core.cards import ScaleRange
from vlbench.core.examples import ImageRef
from vlbench.data.images.augment import drawn_size
from vlbench.data.images.image_cache import resized
from vlbench.data.resources import Resources
from vlbench.models.layers.texts import WordPieceBackbone
from vlbench.models.soho.modeling import SOHOConfig, SOHONetwork


class SOHO(WordPieceBackbone):
    """SOHO's network with its preprocessing; shapes are those of `core.backbone`."""

    title, config_type = "SOHO", SOHOConfig
    config: SOHOConfig

    def __init__(self, config: SOHOConfig, resources: Resources) -> None:
        super().__init__(config, resources)
        self.images = resources.images
        self.network = SOHONetwork(config)

    def visual_parameters(self) -> Iterator[nn.Parameter]:
        """The convolutional network's parameters, which the paper trains at a separate learning rate."""
        return self.network.resnet.parameters()

    def following(self) -> Iterator[nn.Module]:
        """The dictionary, whose entries follow the cells; it is not updated during fine-tuning."""
        if self.config.token != "none":
            yield self.network.neck.dictionary

    def spared(self) -> tuple[str, ...]:
        """The dictionary and the layers after it, if fine-tuning does without a look-up."""
        if self.config.lookup == "always":
            return ()
        return tuple(f"network.neck.{part}" for part in ("dictionary.", "project.", "gate.", "gate_bn."))

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        """Resize N images and put each in the upper left corner of a canvas that fits the largest of this batch.

        Returns: pixels [N, 3, H, W] uint8, H and W multiples of `SOHOConfig.step`; sizes [N, 2] int64, the heights and
            widths of the resized images in pixels.

        Raises DataError: an image cannot be read.
        """
        return self._padded([self._open(ref) for ref in refs])

    def rescaled(self, refs: Sequence[ImageRef], rng: Random, scales: ScaleRange) -> Tensors:
        """As `prepare_images`, at random sizes; the size of an image does not depend on the others in the batch."""
        drawn, limit = rng.random(), scales.longest or self.config.long_side

        def open_at_random_size(ref: ImageRef) -> NDArray[np.uint8]:
            image, own = self.images.open(ref), Random(f"{drawn}/{ref.key}")
            size = drawn_size(*image.size, scales.low, scales.high, limit, own)
            return np.asarray(image.resize(size, Image.Resampling.BILINEAR))

        return self._padded([open_at_random_size(ref) for ref in refs])

    def _padded(self, images: Sequence[NDArray[np.uint8]]) -> Tensors:
        """The result of `prepare_images` for images [h, w, 3] that are already resized."""
        sizes = np.array([image.shape[:2] for image in images], np.int64).reshape(-1, 2)
        step, least = self.config.step, self.config.stride
        height, width = (max(least, int(-(-side // step) * step)) for side in sizes.max(axis=0, initial=0))
        pixels = np.zeros((len(images), height, width, 3), np.uint8)
        for row, image in enumerate(images):
            pixels[row, : image.shape[0], : image.shape[1]] = image
        channels_first = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        return {"pixels": torch.from_numpy(channels_first), "sizes": torch.from_numpy(sizes)}

    def _open(self, ref: ImageRef) -> NDArray[np.uint8]:
        """The image [h, w, 3], as large as both limits of its sides allow, and at least 1 x 1."""
        return resized(self.images, ref, self._size, f"bilinear {self.config.short_side} {self.config.long_side}")

    def _size(self, width: int, height: int) -> tuple[int, int]:
        short, long = sorted((width, height))
        scale = min(self.config.short_side / short, self.config.long_side / long)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """The convolutional network, the dictionary (updated in training mode) and positions: [N, R, D]."""
        cells = self.network.look(images["pixels"], images["sizes"])
        return Visual(self.network.neck.place(cells.tokens, cells.mask), cells.mask.flatten(1))

    def read(self, texts: Tensors) -> Textual:
        """Text embeddings: [M, T, D]."""
        return Textual(self.network.embeddings(texts["ids"]), texts["mask"])

    def fuse(self, seen: Visual, read: Textual, pooled_only: bool = False) -> Features:
        """The transformer over text and cells; pooled is the state of [CLS]."""
        given = read.states, read.keys, seen.states, seen.keys
        if pooled_only and not self.training:
            return Features.of_pooled(self.network.pool(*given))
        text, visual = self.network.fuse(*given)
        return Features(text[:, 0], text, visual, read.mask, seen.mask)

    def attend(self, seen: Visual, read: Textual) -> Tensor:
        """The attention of [CLS] to the cells in the last layer: [P, R]."""
        return self.network.attend(read.states, read.mask, seen.states, seen.mask)

    def places(self, images: Tensors) -> Tensor:
        """The boxes of the cells [N, R, 4] in [0, 1]; zeros for padding."""
        return self.network.boxes(images["sizes"], *images["pixels"].shape[-2:])
