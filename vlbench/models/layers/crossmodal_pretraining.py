"""The objectives that CVLP and LXMERT share: masked language modeling (MLM) and image-text matching (ITM).

Shapes: B pairs, R regions, F numbers per region, T text tokens, V words, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor, nn

from vlbench.core.backbone import Tensors
from vlbench.core.examples import Query
from vlbench.core.validate import Frozen
from vlbench.models.layers.bert import initialize, prediction_transform
from vlbench.models.layers.crossmodal_backbone import CrossModal
from vlbench.models.layers.pretraining import ConfiguredPretraining
from vlbench.models.layers.texts import masked_texts
from vlbench.objectives.itm import itm_loss
from vlbench.objectives.mlm import mlm_loss
from vlbench.objectives.region import mask_regions


class CrossModalPretraining(ConfiguredPretraining):
    """The network with the heads of `mlm`, whose decoder is tied to the word embeddings, and of `itm`."""

    backbone: CrossModal

    def __init__(self, backbone: CrossModal, config: Frozen) -> None:
        super().__init__(backbone, config)
        width = backbone.width
        self.transform = prediction_transform(width)
        self.word_bias = nn.Parameter(torch.zeros(backbone.text.vocab_size))
        self.matching = nn.Linear(width, 2)
        for part in (self.transform, self.matching):
            initialize(part, backbone.config.initial_std)

    def prepare(self, pairs: Sequence[Query], rng: Random) -> Tensors:
        """Mask words and regions; each pair gets another pair's text with probability 0.5. Boxes are never masked.

        Returns: the result of `masked_texts`; features [B, R, F] unmasked and `hidden` [B, R, F] after masking; chosen
            [B, R] bool, the regions to predict; boxes [B, R, 4] in [0, 1]; visual_mask [B, R] bool.
        """
        texts = masked_texts(self.backbone, pairs, rng)
        regions = self.backbone.prepare_images([pair.images[0] for pair in pairs])
        hidden, chosen = mask_regions(regions["features"], regions["mask"], rng)
        masked = {"hidden": hidden, "chosen": chosen, "visual_mask": regions.pop("mask")}
        return texts | regions | masked

    def fused(self, batch: Tensors) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The losses `mlm` and `itm` of a prepared batch, the pooled states [B, D] and the region states [B, R, D]."""
        network = self.backbone.network
        # A masked region is zeros after standardising, as it is without standardising.
        hidden = self.backbone.standardise(batch["hidden"]) * (batch["hidden"] != 0).any(dim=-1, keepdim=True)
        seen = network.see(hidden, batch["boxes"], batch["visual_mask"])
        read = network.read(batch["ids"], batch["text_mask"])
        pooled, text, visual = network.fuse(read, batch["text_mask"], seen, batch["visual_mask"])
        words = self.transform(text) @ network.embeddings.word_embeddings.weight.T + self.word_bias
        losses = {"mlm": mlm_loss(words, batch["labels"]), "itm": itm_loss(self.matching(pooled), batch["matched"])}
        return losses, pooled, visual
