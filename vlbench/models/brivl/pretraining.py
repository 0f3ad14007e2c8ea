"""BriVL's pretraining: each tower finds the other's key among those of many steps before.

Shapes: B pairs, K keys in a queue, E width of the embeddings.
Source: Huo et al. 2021 (arXiv 2103.06561) and its official code.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Self

import torch
from PIL import Image, ImageEnhance, ImageOps
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Tensors
from vlbench.core.cards import ModelCard
from vlbench.core.examples import Query
from vlbench.core.pretraining import Gather, Option, alone
from vlbench.core.validate import Frozen, parse
from vlbench.data.resources import Resources
from vlbench.models.brivl.backbone import BriVL
from vlbench.models.brivl.modeling import BriVLNetwork
from vlbench.models.layers.momentum import MomentumCopy, Queue
from vlbench.objectives.itc import two_queue_loss

JITTERED, GREY = 0.8, 0.2
"""How often a picture's colours are changed, and how often it loses them."""
STRENGTH, HUE = 0.4, 0.1


class BriVLPretrainingConfig(Frozen):
    """momentum: of the key towers. queue: keys of each sort that are negatives. temperature: of the contrast. augment:
    whether colours are changed by chance, as the official code does; where colours are what captions speak of, no."""

    momentum: float = Field(default=0.99, ge=0, lt=1)
    queue: int = Field(default=9600, ge=1)
    temperature: float = Field(default=0.07, gt=0)
    augment: bool = True


class BriVLPretraining(nn.Module):
    """The towers with their one objective `itc`, their momentum copies, and a queue of keys of each sort.

    Other pairs of a batch are no negatives. Queues begin with random vectors of length 1. The copies stay in evaluation
    mode, where a batch norm does not tell which pairs shared a batch; so nothing needs to be shuffled between devices.
    """

    divisible = True

    def __init__(self, backbone: BriVL, config: BriVLPretrainingConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        self._copy = MomentumCopy(backbone.network, config.momentum)
        self.key = self._copy.module  # as a part of this module it is saved with it
        self.image_queue = _random_queue(config.queue, backbone.width)
        self.text_queue = _random_queue(config.queue, backbone.width)
        self._fresh: list[tuple[Tensor, Tensor]] = []

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources, options: Mapping[str, Option]) -> Self:
        """Build it at one of the card's sizes; options override the size's numbers.

        Raises:
            VlbenchError: a faulty number or an option there is none of.
        """
        values = {**card.sizes[size].pretraining, **options}
        config = parse(BriVLPretrainingConfig, values, f"pretraining of {card.name}-{size}")
        return cls(BriVL.from_card(card, size, resources), config)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but the copies stay in evaluation mode."""
        super().train(mode)
        self.key.eval()
        return self

    def restart_copies(self, loaded: Collection[str]) -> None:
        """The momentum towers start from the towers again, unless they were loaded too, as official files hold both."""
        if not any(name.startswith("key.") for name in loaded):
            self._copy.restart(self.backbone.network)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the losses."""
        return ("itc",)

    def prepare(self, pairs: Sequence[Query], rng: Random) -> Tensors:
        """What the backbone prepares of the pairs' pictures and texts, the texts' names with `text_` before them."""
        refs = [pair.images[0] for pair in pairs]
        pictures = [self.backbone.pictures.open(ref) for ref in refs]
        if self.config.augment:
            pictures = [recoloured(picture, rng) for picture in pictures]
        texts = self.backbone.prepare_texts([pair.text for pair in pairs])
        return self.backbone.arranged(pictures, refs) | {f"text_{name}": value for name, value in texts.items()}

    def losses(self, batch: Tensors) -> Mapping[str, Tensor]:
        """The sum of both directions, each against the other tower's key and the queue of such keys."""
        images, texts = _embedded(self.backbone.network, batch)
        with torch.no_grad():
            image_keys, text_keys = _embedded(self.key, batch)
            self._fresh.append((image_keys, text_keys))
        queues = self.image_queue.filled(), self.text_queue.filled()
        return {"itc": two_queue_loss(images, texts, image_keys, text_keys, *queues, self.config.temperature)}

    def after_step(self, gather: Gather = alone) -> None:
        """The copies move towards the towers; the keys of this step become negatives of later ones."""
        self._copy.update(self.backbone.network)
        if self._fresh:
            for queue, keys in zip((self.image_queue, self.text_queue), zip(*self._fresh, strict=True), strict=True):
                queue.push(gather(torch.cat(keys)))
            self._fresh.clear()

    def settings(self) -> Mapping[str, Option]:
        """The options as they ran."""
        return self.config.model_dump()

    def head_weights(self) -> Mapping[str, Tensor]:
        """The temperature, for a head that ranks by dot products."""
        return {"head.log_scale": torch.tensor(-math.log(self.config.temperature))}


def recoloured(picture: Image.Image, rng: Random) -> Image.Image:
    """Often with brightness, contrast, saturation and hue changed, in any order; now and then without colours."""
    if rng.random() < JITTERED:
        for change in rng.sample([_enhanced, _contrasted, _saturated, _turned], 4):
            picture = change(picture, rng)
    return ImageOps.grayscale(picture).convert("RGB") if rng.random() < GREY else picture


def _factor(rng: Random) -> float:
    return rng.uniform(1 - STRENGTH, 1 + STRENGTH)


def _enhanced(picture: Image.Image, rng: Random) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(_factor(rng))


def _contrasted(picture: Image.Image, rng: Random) -> Image.Image:
    return ImageEnhance.Contrast(picture).enhance(_factor(rng))


def _saturated(picture: Image.Image, rng: Random) -> Image.Image:
    return ImageEnhance.Color(picture).enhance(_factor(rng))


def _turned(picture: Image.Image, rng: Random) -> Image.Image:
    """Every hue moved along the circle by the same share of it, up to a tenth."""
    shift = round(256 * rng.uniform(-HUE, HUE))
    hue, saturation, value = picture.convert("HSV").split()
    return Image.merge("HSV", (hue.point([(old + shift) % 256 for old in range(256)]), saturation, value)).convert(
        "RGB"
    )


def _embedded(network: BriVLNetwork, batch: Tensors) -> tuple[Tensor, Tensor]:
    """The pairs' pictures and texts, [B, E] each."""
    images: Tensor = network.image(batch["pixels"], batch["boxes"], batch["mask"])
    texts: Tensor = network.text(batch["text_ids"], batch["text_mask"])
    return images, texts


def _random_queue(size: int, width: int) -> Queue:
    queue = Queue(size, width)
    queue.push(functional.normalize(torch.randn(size, width), dim=-1))
    return queue
