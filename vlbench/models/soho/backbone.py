"""SOHO as a backbone: pictures and texts to tensors, tensors to features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from vlbench.core.backbone import Features, Tensors, Textual, Visual
from vlbench.core.cards import ModelCard, ScaleRange
from vlbench.core.examples import ImageRef
from vlbench.core.validate import parse
from vlbench.data.images.augment import drawn_size
from vlbench.data.images.image_cache import resized
from vlbench.data.resources import Resources
from vlbench.models.layers.texts import check_length, prepared_texts
from vlbench.models.soho.modeling import SOHOConfig, SOHONetwork


class SOHO(nn.Module):
    """The network with its doors to the data; its shapes are those of `core.backbone`.

    Raises:
        VlbenchError: texts longer than the network has positions for.
    """

    def __init__(self, config: SOHOConfig, resources: Resources) -> None:
        super().__init__()
        check_length(resources.text, config.positions, "SOHO")
        self.config = config
        self.width = config.width
        self.text = resources.text
        self.pictures = resources.images
        self.network = SOHONetwork(config)

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources) -> Self:
        """Build one of the card's sizes, untrained, with the vocabulary of `resources`.

        Raises:
            VlbenchError: faulty numbers in the card, or what the class refuses.
        """
        values = {**card.sizes[size].config, "vocab_size": resources.text.vocab_size}
        return cls(parse(SOHOConfig, values, f"size {size!r} of model {card.name!r}"), resources)

    def visual_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the convolutional network, which the paper trains at a learning rate of its own."""
        return self.network.resnet.parameters()

    def following(self) -> Iterator[nn.Module]:
        """The dictionary, whose entries follow the cells: it does not move while the model is finetuned."""
        if self.config.token != "none":
            yield self.network.neck.dictionary

    def spared(self) -> tuple[str, ...]:
        """The dictionary and what weighs its entries, where finetuning does without a look-up."""
        if self.config.lookup == "always":
            return ()
        return tuple(f"network.neck.{part}" for part in ("dictionary.", "project.", "gate.", "gate_bn."))

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        """The pictures, resized, in the upper left corner of a canvas that holds the largest of this batch.

        Returns: pixels [N, 3, H, W] uint8, H and W as the network takes them; sizes [N, 2] int64, the pictures' own
            heights and widths in pixels.

        Raises:
            DataError: a picture cannot be read.
        """
        return self._padded([self._open(ref) for ref in refs])

    def rescaled(self, refs: Sequence[ImageRef], rng: Random, scales: ScaleRange) -> Tensors:
        """As `prepare_images`, of images of random sizes; the size of one does not depend on others of the batch."""
        drawn, limit = rng.random(), scales.longest or self.config.long_side

        def opened(ref: ImageRef) -> NDArray[np.uint8]:
            image, own = self.pictures.open(ref), Random(f"{drawn}/{ref.key}")
            size = drawn_size(*image.size, scales.low, scales.high, limit, own)
            return np.asarray(image.resize(size, Image.Resampling.BILINEAR))

        return self._padded([opened(ref) for ref in refs])

    def _padded(self, images: Sequence[NDArray[np.uint8]]) -> Tensors:
        """What `prepare_images` returns, from images [h, w, 3] that were resized already."""
        sizes = np.array([image.shape[:2] for image in images], np.int64).reshape(-1, 2)
        step, least = self.config.step, self.config.stride
        height, width = (max(least, int(-(-side // step) * step)) for side in sizes.max(axis=0, initial=0))
        pixels = np.zeros((len(images), height, width, 3), np.uint8)
        for row, image in enumerate(images):
            pixels[row, : image.shape[0], : image.shape[1]] = image
        channels_first = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        return {"pixels": torch.from_numpy(channels_first), "sizes": torch.from_numpy(sizes)}

    def _open(self, ref: ImageRef) -> NDArray[np.uint8]:
        """The picture [h, w, 3], as large as both limits of its sides allow, at least one pixel high and wide."""
        return resized(self.pictures, ref, self._size, f"bilinear {self.config.short_side} {self.config.long_side}")

    def _size(self, width: int, height: int) -> tuple[int, int]:
        short, long = sorted((width, height))
        scale = min(self.config.short_side / short, self.config.long_side / long)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def prepare_texts(self, texts: Sequence[str]) -> Tensors:
        """The texts' tokens, cut to the longest text in this batch: ids [M, T] int64, mask [M, T] bool."""
        return prepared_texts(self.text, texts)

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """The convolutional network, the dictionary and positions; the head tells pictures apart, not `slot`.

        While training, the dictionary's entries follow what was seen.
        """
        looked = self.network.look(images["pixels"], images["sizes"])
        return Visual(self.network.neck.place(looked.tokens, looked.mask), looked.mask.flatten(1))

    def read(self, texts: Tensors) -> Textual:
        """Text embeddings."""
        return Textual(self.network.read(texts["ids"]), texts["mask"])

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """The transformer over both; pooled is the state of [CLS]."""
        text, visual = self.network.fuse(read.states, read.mask, seen.states, seen.mask)
        return Features(text[:, 0], text, visual, read.mask, seen.mask)

    def attend(self, seen: Visual, read: Textual) -> Tensor:
        """What [CLS] attends to among the grid's cells in the last layer: [P, R]."""
        return self.network.attend(read.states, read.mask, seen.states, seen.mask)

    def places(self, images: Tensors) -> Tensor:
        """The cells of the pictures' grids, [N, R, 4]."""
        return self.network.boxes(images["sizes"], *images["pixels"].shape[-2:])
