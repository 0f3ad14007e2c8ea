"""CVLP's pretraining: masked words, matching, and contrast of regions with a momentum network's.

Shapes: B pairs, R regions, F numbers per region, T tokens, D width, E = 128, the width of the contrast.
Source: Shi et al. 2020 (arXiv 2007.13135) and its official code; where they differ an option names both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from random import Random
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from vlbench.core.backbone import Tensors
from vlbench.core.cards import ModelCard
from vlbench.core.examples import Query
from vlbench.core.pretraining import Gather, Option, alone
from vlbench.core.validate import Frozen, parse
from vlbench.data.resources import Resources
from vlbench.models.cvlp.backbone import CVLP
from vlbench.models.layers.attention import attention_mask
from vlbench.models.layers.blocks import EPSILON
from vlbench.models.layers.crossmodal import CrossModalNetwork
from vlbench.models.layers.crossmodal_pretraining import CrossModalPretraining
from vlbench.models.layers.initialize import initialize
from vlbench.models.layers.momentum import MomentumCopy, Queue
from vlbench.objectives.contrast import region_contrast

CONTRAST_WIDTH = 128
KeyDrop = Literal["none", "paper", "official"]


class CVLPPretrainingConfig(Frozen):
    """key_drop: which layers of the key network run in a step. `paper`: each with a chance of one half. `official`, the
    default because published numbers were made with it: the even ones and the last always, the others with a chance of
    one half. `none`: all. momentum: of the key network. queue: past keys that are negatives; the official code keeps
    those of 30 steps. temperature, clip: of the contrast."""

    key_drop: KeyDrop = "official"
    momentum: float = Field(default=0.99995, ge=0, lt=1)
    queue: int = Field(default=276_480, ge=1)
    temperature: float = Field(default=0.07, gt=0)
    clip: float = Field(default=10.0, gt=0)


class Contrasting(nn.Module):
    """A network and the head whose outputs are contrasted; the query's and the key's are two of these."""

    def __init__(self, network: CrossModalNetwork, width: int) -> None:
        super().__init__()
        self.network = network
        self.head = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.LayerNorm(2 * width, eps=EPSILON),
            nn.Linear(2 * width, CONTRAST_WIDTH),
        )


class CVLPPretraining(CrossModalPretraining):
    """The query network with its objectives `mlm`, `itm` and `contrast`, weighted 1 : 1 : 1, and the key network."""

    def __init__(self, backbone: CVLP, config: CVLPPretrainingConfig) -> None:
        super().__init__(backbone)
        self.config = config
        query = Contrasting(backbone.network, backbone.width)
        self.region_head = query.head
        initialize(self.region_head, backbone.config.initial_std)
        self._query = (query,)  # in a tuple, since its parts are this module's already and are saved once
        self._copy = MomentumCopy(query, config.momentum)
        self.key = self._copy.module  # as a part of this module it is saved with it
        self.queue = Queue(config.queue, CONTRAST_WIDTH)
        self._fresh: list[Tensor] = []

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources, options: Mapping[str, Option]) -> Self:
        """Build it at one of the card's sizes; options override the size's numbers.

        Raises:
            VlbenchError: a faulty number or an option there is none of.
        """
        values = {**card.sizes[size].pretraining, **options}
        config = parse(CVLPPretrainingConfig, values, f"pretraining of {card.name}-{size}")
        return cls(CVLP.from_card(card, size, resources), config)

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the key network: dropout in a target only blurs it."""
        super().train(mode)
        self.key.eval()
        return self

    def restart_copies(self, loaded: Collection[str]) -> None:
        """The key network starts from the query network again: official files hold no key network of these names."""
        self._copy.restart(self._query[0])

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the losses."""
        return ("mlm", "itm", "contrast")

    def prepare(self, pairs: Sequence[Query], rng: Random) -> Tensors:
        """Texts and regions, hidden in part, half of the texts another pair's; which of the key's layers run."""
        encoder = self.backbone.network.encoder
        layers = {"language": encoder.layer, "region": encoder.r_layers, "cross": encoder.x_layers}
        return super().prepare(pairs, rng) | {
            name: torch.tensor(kept_layers(len(of), self.config.key_drop, rng)) for name, of in layers.items()
        }

    def losses(self, batch: Tensors) -> Mapping[str, Tensor]:
        """The three losses of a prepared batch; the contrast is 0 until the queue is full."""
        losses, _, visual = self.fused(batch)
        return losses | {"contrast": self._contrast(self.region_head(visual[batch["visual_mask"]]), batch)}

    def _contrast(self, queries: Tensor, batch: Tensors) -> Tensor:
        """Regions [Q, E] against the key network's of clean features and the same hidden words."""
        with torch.no_grad():
            keys = self.key.head(self._key_states(batch)[batch["visual_mask"]])
            self._fresh.append(nn.functional.normalize(keys, dim=-1))
        queue = self.queue.filled()
        full = queue if len(queue) == self.config.queue else queue[:0]
        return region_contrast(queries, keys, full, temperature=self.config.temperature, clip=self.config.clip)

    def _key_states(self, batch: Tensors) -> Tensor:
        """The key network's regions [B, R, D], by the layers that run in this step."""
        network, encoder = self.key.network, self.key.network.encoder
        text_keys, visual_keys = attention_mask(batch["text_mask"]), attention_mask(batch["visual_mask"])
        text = network.embeddings(batch["ids"])
        for layer in _running(encoder.layer, batch["language"]):
            text = layer(text, text_keys)
        visual = encoder.visn_fc(self.backbone.standardise(batch["features"]), batch["boxes"])
        for layer in _running(encoder.r_layers, batch["region"]):
            visual = layer(visual, visual_keys)
        for layer in _running(encoder.x_layers, batch["cross"]):
            text, visual = layer(text, text_keys, visual, visual_keys)
        states: Tensor = visual
        return states

    def settings(self) -> Mapping[str, Option]:
        """The options as they ran."""
        return self.config.model_dump()

    def after_step(self, gather: Gather = alone) -> None:
        """The key network moves towards the query's; the keys of this step become negatives of later ones."""
        self._copy.update(*self._query)
        if self._fresh:
            self.queue.push(gather(torch.cat(self._fresh)))
            self._fresh.clear()


def kept_layers(count: int, drop: KeyDrop, rng: Random) -> list[bool]:
    """Which of so many layers of the key network run."""
    match drop:
        case "none":
            return [True] * count
        case "paper":
            return [rng.random() < 0.5 for _ in range(count)]
        case "official":
            return [place % 2 == 0 or place == count - 1 or rng.random() < 0.5 for place in range(count)]


def _running(layers: nn.ModuleList, kept: Tensor) -> Iterable[nn.Module]:
    return (layer for layer, runs in zip(layers, kept.tolist(), strict=True) if runs)
