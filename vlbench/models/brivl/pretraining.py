"""BriVL's pretraining: image-text contrast (ITC) of each tower with the other tower's queue of past keys.

Shapes: B pairs, K keys in a queue, E width of the embeddings.
Source: Huo et al. 2021 (arXiv 2103.06561) and its official code.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from random import Random

import torch
from PIL import Image, ImageEnhance, ImageOps
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Tensors
from vlbench.core.examples import Query
from vlbench.core.pretraining import Gather, alone
from vlbench.core.validate import Frozen
from vlbench.models.brivl.backbone import BriVL
from vlbench.models.brivl.modeling import BriVLNetwork
from vlbench.models.layers.eval_parts import EvalParts
from vlbench.models.layers.momentum import MomentumCopy, Queue
from vlbench.models.layers.pretraining import ConfiguredPretraining
from vlbench.objectives.itc import two_queue_loss

JITTERED, GREY = 0.8, 0.2
"""The probability of changing an image's colours, and of converting it to grey."""
FACTORS, HUE = (1 - 0.4, 1 + 0.4), 0.1
"""Limits of the factors of brightness, contrast and saturation, and of the change of hue."""


class BriVLPretrainingConfig(Frozen):
    """The options of the pretraining.

    momentum: of the key towers. queue: number of past keys of each tower used as negatives. temperature: of the
    contrast. augment: change colours at random, as in the official code; turn it off if captions name colours.
    """

    momentum: float = Field(default=0.99, ge=0, lt=1)
    queue: int = Field(default=9600, ge=1)
    temperature: float = Field(default=0.07, gt=0)
    augment: bool = True


class BriVLPretraining(EvalParts, ConfiguredPretraining):
    """The towers with their one objective `itc`, their momentum copies, and a queue of keys for each tower.

    Other pairs of a batch are not negatives. The queues start with random vectors of length 1. The copies stay in eval
    mode, so that batch norms leak nothing about the batch and no shuffling between devices is needed.
    """

    backbone_type, config_type = BriVL, BriVLPretrainingConfig
    backbone: BriVL
    config: BriVLPretrainingConfig

    def __init__(self, backbone: BriVL, config: BriVLPretrainingConfig) -> None:
        super().__init__(backbone, config)
        self._copy = MomentumCopy(backbone.network, config.momentum)
        self.key = self._copy.module  # registered here, so that it is saved with this module
        self.image_queue = _random_queue(config.queue, backbone.width)
        self.text_queue = _random_queue(config.queue, backbone.width)
        self._fresh: list[tuple[Tensor, Tensor]] = []

    def eval_parts(self) -> Iterable[nn.Module]:
        """The momentum copies."""
        return (self.key,)

    def restart_copies(self, loaded: Collection[str]) -> None:
        """Copy the towers to the momentum towers, unless those were loaded too: official files hold both."""
        if not any(name.startswith("key.") for name in loaded):
            self._copy.restart(self.backbone.network)

    @property
    def objectives(self) -> tuple[str, ...]:
        return ("itc",)

    def prepare(self, pairs: Sequence[Query], rng: Random) -> Tensors:
        """The results of `BriVL.prepare_images` and, with the prefix `text_`, of `BriVL.prepare_texts`."""
        refs = [pair.images[0] for pair in pairs]
        images = [self.backbone.images.open(ref) for ref in refs]
        if self.config.augment:
            images = [change_colours(image, rng) for image in images]
        texts = self.backbone.prepare_texts([pair.text for pair in pairs])
        return self.backbone.collate(images, refs) | {f"text_{name}": value for name, value in texts.items()}

    def losses(self, batch: Tensors) -> Mapping[str, Tensor]:
        """The sum over both directions of the contrast with the other tower's key and queue."""
        images, texts = _embedded(self.backbone.network, batch)
        with torch.no_grad():
            image_keys, text_keys = _embedded(self.key, batch)
            self._fresh.append((image_keys, text_keys))
        queues = self.image_queue.filled(), self.text_queue.filled()
        return {"itc": two_queue_loss(images, texts, image_keys, text_keys, *queues, self.config.temperature)}

    def after_step(self, gather: Gather = alone) -> None:
        """Move the copies towards the towers, and push this step's keys to the queues."""
        self._copy.update(self.backbone.network)
        if self._fresh:
            for queue, keys in zip((self.image_queue, self.text_queue), zip(*self._fresh, strict=True), strict=True):
                queue.push(gather(torch.cat(keys)))
            self._fresh.clear()

    def head_weights(self) -> Mapping[str, Tensor]:
        """The temperature, for a dual-encoder ranking head."""
        return {"head.log_scale": torch.tensor(-math.log(self.config.temperature))}


def change_colours(image: Image.Image, rng: Random) -> Image.Image:
    """Change brightness, contrast, saturation and hue in random order (probability 0.8); convert to grey (0.2)."""
    if rng.random() < JITTERED:
        for change in rng.sample([ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color, None], 4):
            image = _shift_hue(image, rng) if change is None else change(image).enhance(rng.uniform(*FACTORS))
    return ImageOps.grayscale(image).convert("RGB") if rng.random() < GREY else image


def _shift_hue(image: Image.Image, rng: Random) -> Image.Image:
    """Shift all hues by the same random part of the hue circle, up to a tenth."""
    shift = round(256 * rng.uniform(-HUE, HUE))
    hue, saturation, value = image.convert("HSV").split()
    shifted = hue.point([(old + shift) % 256 for old in range(256)])
    return Image.merge("HSV", (shifted, saturation, value)).convert("RGB")


def _embedded(network: BriVLNetwork, batch: Tensors) -> tuple[Tensor, Tensor]:
    """The embeddings of the pairs' images and texts, [B, E] each."""
    images: Tensor = network.image(batch["pixels"], batch["boxes"], batch["mask"])
    texts: Tensor = network.text(batch["text_ids"], batch["text_mask"])
    return images, texts


def _random_queue(size: int, width: int) -> Queue:
    queue = Queue(size, width)
    queue.push(functional.normalize(torch.randn(size, width), dim=-1))
    return queue
