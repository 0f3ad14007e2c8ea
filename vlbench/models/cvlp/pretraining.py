"""CVLP's pretraining: MLM, ITM, and contrast of regions with the keys of a momentum network.

Shapes: B pairs, R regions, F numbers per region, T text tokens, D width, E = 128 contrast width, Q real regions.
Source: Shi et al. 2020 (arXiv 2007.13135) and its official code; where they differ, an option names both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from random import Random
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Tensors
from vlbench.core.examples import Query
from vlbench.core.pretraining import Gather, alone
from vlbench.core.validate import Frozen
from vlbench.models.cvlp.backbone import CVLP
from vlbench.models.layers.attention import attention_mask
from vlbench.models.layers.bert import initialize, perceptron
from vlbench.models.layers.crossmodal import CrossModalNetwork
from vlbench.models.layers.crossmodal_pretraining import CrossModalPretraining
from vlbench.models.layers.eval_parts import EvalParts
from vlbench.models.layers.momentum import MomentumCopy, Queue
from vlbench.objectives.itc import region_contrast

CONTRAST_WIDTH = 128
KeyDrop = Literal["none", "paper", "official"]


class CVLPPretrainingConfig(Frozen):
    """The options of the pretraining.

    key_drop: which layers of the key network run in a step. `paper`: each with probability 0.5. `official`, the default
    because published results used it: the even ones and the last one always, the others with probability 0.5. `none`:
    all. momentum: of the key network. queue: number of past keys used as negatives; the official code keeps those of 30
    steps. temperature, clip: of the contrast.
    """

    key_drop: KeyDrop = "official"
    momentum: float = Field(default=0.99995, ge=0, lt=1)
    queue: int = Field(default=276_480, ge=1)
    temperature: float = Field(default=0.07, gt=0)
    clip: float = Field(default=10.0, gt=0)


class Contrasting(nn.Module):
    """A network with its contrast head; there is one for queries and one for keys."""

    def __init__(self, network: CrossModalNetwork, width: int) -> None:
        super().__init__()
        self.network = network
        self.head = perceptron(width, CONTRAST_WIDTH)


class CVLPPretraining(EvalParts, CrossModalPretraining):
    """The query network with its objectives `mlm`, `itm` and `contrast`, weighted 1 : 1 : 1, and the key network."""

    backbone_type, config_type = CVLP, CVLPPretrainingConfig
    config: CVLPPretrainingConfig

    def __init__(self, backbone: CVLP, config: CVLPPretrainingConfig) -> None:
        super().__init__(backbone, config)
        query = Contrasting(backbone.network, backbone.width)
        self.region_head = query.head
        initialize(self.region_head, backbone.config.initial_std)
        self._query = (query,)  # a tuple, so that parts which this module already has are not registered twice
        self._copy = MomentumCopy(query, config.momentum)
        self.key = self._copy.module  # registered here, so that it is saved with this module
        self.queue = Queue(config.queue, CONTRAST_WIDTH)
        self._fresh: list[Tensor] = []

    def eval_parts(self) -> Iterable[nn.Module]:
        """The key network: dropout would only add noise to a target."""
        return (self.key,)

    def restart_copies(self, loaded: Collection[str]) -> None:
        """Copy the query network to the key network: official files hold no key network under these names."""
        self._copy.restart(self._query[0])

    @property
    def objectives(self) -> tuple[str, ...]:
        return ("mlm", "itm", "contrast")

    def prepare(self, pairs: Sequence[Query], rng: Random) -> Tensors:
        """As `CrossModalPretraining.prepare`, and which layers of the key network run.

        Returns: also language, region and cross [number of layers] bool.
        """
        encoder = self.backbone.network.encoder
        kinds = {"language": encoder.layer, "region": encoder.r_layers, "cross": encoder.x_layers}
        return super().prepare(pairs, rng) | {
            kind: torch.tensor(kept_layers(len(layers), self.config.key_drop, rng)) for kind, layers in kinds.items()
        }

    def losses(self, batch: Tensors) -> Mapping[str, Tensor]:
        """The three losses of a prepared batch; the contrast is 0 until the queue is full."""
        losses, _, visual = self.fused(batch)
        return losses | {"contrast": self._contrast(self.region_head(visual[batch["visual_mask"]]), batch)}

    def _contrast(self, queries: Tensor, batch: Tensors) -> Tensor:
        """The contrast of queries [Q, E] with the key network's output for unmasked features and masked words."""
        with torch.no_grad():
            keys = self.key.head(self._key_states(batch)[batch["visual_mask"]])
            self._fresh.append(functional.normalize(keys, dim=-1))
        queue = self.queue.filled()
        full = queue if len(queue) == self.config.queue else queue[:0]
        return region_contrast(queries, keys, full, temperature=self.config.temperature, clip=self.config.clip)

    def _key_states(self, batch: Tensors) -> Tensor:
        """The key network's region states [B, R, D], from the layers that run in this step."""
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

    def after_step(self, gather: Gather = alone) -> None:
        """Move the key network towards the query network, and push this step's keys to the queue."""
        self._copy.update(*self._query)
        if self._fresh:
            self.queue.push(gather(torch.cat(self._fresh)))
            self._fresh.clear()


def kept_layers(count: int, drop: KeyDrop, rng: Random) -> list[bool]:
    """Draw which of `count` layers of the key network run."""
    match drop:
        case "none":
            return [True] * count
        case "paper":
            return [rng.random() < 0.5 for _ in range(count)]
        case "official":
            return [place % 2 == 0 or place == count - 1 or rng.random() < 0.5 for place in range(count)]


def _running(layers: nn.ModuleList, kept: Tensor) -> Iterable[nn.Module]:
    return (layer for layer, runs in zip(layers, kept.tolist(), strict=True) if runs)
