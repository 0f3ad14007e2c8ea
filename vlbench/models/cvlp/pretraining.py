"""CVLP's pretraining: masked words, matching, and contrast of regions with a momentum network's.

Shapes: B pairs, R regions, F numbers per region, T tokens, D width, E = 128, the width of the contrast.
Source: Shi et al. 2020 (arXiv 2007.13135) and its official code; where they differ an option names both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from vlbench.core.backbone import Tensors
from vlbench.core.cards import ModelCard
from vlbench.core.examples import Query
from vlbench.core.validate import Frozen, parse
from vlbench.data.resources import Resources
from vlbench.models.cvlp.backbone import CVLP
from vlbench.models.cvlp.modeling import QueryNetwork
from vlbench.models.layers.attention import attention_mask
from vlbench.models.layers.blocks import EPSILON
from vlbench.models.layers.initialize import initialize
from vlbench.models.layers.momentum import MomentumCopy, Queue
from vlbench.objectives.contrast import region_contrast
from vlbench.objectives.itm import itm_loss, mismatch
from vlbench.objectives.mlm import mask_tokens, mlm_loss
from vlbench.objectives.region import mask_regions

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

    def __init__(self, network: QueryNetwork, width: int) -> None:
        super().__init__()
        self.network = network
        self.head = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.LayerNorm(2 * width, eps=EPSILON),
            nn.Linear(2 * width, CONTRAST_WIDTH),
        )


class CVLPPretraining(nn.Module):
    """The query network with its objectives `mlm`, `itm` and `contrast`, weighted 1 : 1 : 1, and the key network."""

    def __init__(self, backbone: CVLP, config: CVLPPretrainingConfig) -> None:
        super().__init__()
        width, words = backbone.width, backbone.text.vocab_size
        self.backbone = backbone
        self.config = config
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=EPSILON))
        self.word_bias = nn.Parameter(torch.zeros(words))
        self.matching = nn.Linear(width, 2)
        query = Contrasting(backbone.network, width)
        self.region_head = query.head
        for part in (self.transform, self.matching, self.region_head):
            initialize(part, backbone.config.initial_std)
        self._query = (query,)  # in a tuple, since its parts are this module's already and are saved once
        self._copy = MomentumCopy(query, config.momentum)
        self.key = self._copy.module  # as a part of this module it is saved with it
        self.queue = Queue(config.queue, CONTRAST_WIDTH)
        self._fresh: Tensor | None = None

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources, options: Mapping[str, str]) -> Self:
        """Build it at one of the card's sizes; options override the size's numbers.

        Raises:
            VlbenchError: a faulty number or an option there is none of.
        """
        values = {**card.sizes[size].pretraining, **options}
        config = parse(CVLPPretrainingConfig, values, f"pretraining of {card.name}-{size}")
        return cls(CVLP.from_card(card, size, resources), config)

    def prepare(self, pairs: Sequence[Query], rng: Random) -> Tensors:
        """Texts and regions, hidden in part, half of the texts another pair's; which of the key's layers run."""
        rows, kept = mismatch(len(pairs), rng)
        matched = [
            own or pairs[row].images == pair.images or pairs[row].text == pair.text
            for pair, row, own in zip(pairs, rows, kept, strict=True)
        ]
        text = self.backbone.text
        words = self.backbone.prepare_texts([pairs[row].text for row in rows])
        special = ~words["mask"] | (words["ids"] == text.id_of("[CLS]")) | (words["ids"] == text.id_of("[SEP]"))
        ids, labels = mask_tokens(
            words["ids"], special, rng, vocabulary=range(text.vocab_size), mask_id=text.id_of("[MASK]")
        )
        regions = self.backbone.prepare_images([pair.images[0] for pair in pairs])
        hidden, _ = mask_regions(regions["features"], regions["mask"], rng)
        encoder = self.backbone.network.encoder
        layers = {"language": encoder.layer, "region": encoder.r_layers, "cross": encoder.x_layers}
        return {
            "ids": ids,
            "text_mask": words["mask"],
            "labels": labels,
            "matched": torch.tensor(matched),
            "features": regions["features"],
            "hidden": hidden,
            "boxes": regions["boxes"],
            "visual_mask": regions["mask"],
        } | {name: torch.tensor(kept_layers(len(of), self.config.key_drop, rng)) for name, of in layers.items()}

    def losses(self, batch: Tensors) -> Mapping[str, Tensor]:
        """The three losses of a prepared batch; the contrast is 0 until the queue is full, as in the official code."""
        network, standardise = self.backbone.network, self.backbone.standardise
        text_mask, visual_mask = batch["text_mask"], batch["visual_mask"]
        # A hidden region is zeros after the scale is taken out, as it is for features taken as they are.
        hidden = standardise(batch["hidden"]) * (batch["hidden"] != 0).any(dim=-1, keepdim=True)
        seen = network.see(hidden, batch["boxes"], visual_mask)
        read = network.read(batch["ids"], text_mask)
        pooled, text, visual = network.fuse(read, text_mask, seen, visual_mask)
        words = self.transform(text) @ network.embeddings.word_embeddings.weight.T + self.word_bias
        contrast = self._contrast(self.region_head(visual[visual_mask]), batch)
        return {
            "mlm": mlm_loss(words, batch["labels"]),
            "itm": itm_loss(self.matching(pooled), batch["matched"]),
            "contrast": contrast,
        }

    def _contrast(self, queries: Tensor, batch: Tensors) -> Tensor:
        """Regions [Q, E] against the key network's of clean features and the same hidden words."""
        with torch.no_grad():
            keys = self.key.head(self._key_states(batch)[batch["visual_mask"]])
            self._fresh = nn.functional.normalize(keys, dim=-1)
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

    def after_step(self) -> None:
        """The key network moves towards the query's; the keys of this step become negatives of later ones."""
        self._copy.update(*self._query)
        if self._fresh is not None:
            self.queue.push(self._fresh)
            self._fresh = None


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
