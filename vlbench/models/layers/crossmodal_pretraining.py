"""What CVLP and LXMERT learn alike: the hidden words of a text, and whether it belongs to the picture.

Shapes: B pairs, R regions, F numbers per region, T text tokens, V words, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import torch
from torch import Tensor, nn

from vlbench.core.backbone import Tensors
from vlbench.core.examples import Query
from vlbench.models.layers.blocks import EPSILON
from vlbench.models.layers.crossmodal_backbone import CrossModal
from vlbench.models.layers.initialize import initialize
from vlbench.models.layers.texts import masked_texts
from vlbench.objectives.itm import itm_loss
from vlbench.objectives.mlm import mlm_loss
from vlbench.objectives.region import mask_regions

MATCHED = 1
"""The row of the matching head that stands for a match."""


class CrossModalPretraining(nn.Module):
    """The network with the heads of `mlm`, whose last product is the word embeddings', and of `itm`."""

    divisible = True

    def __init__(self, backbone: CrossModal) -> None:
        super().__init__()
        width = backbone.width
        self.backbone = backbone
        self.transform = transform(width)
        self.word_bias = nn.Parameter(torch.zeros(backbone.text.vocab_size))
        self.matching = nn.Linear(width, 2)
        for part in (self.transform, self.matching):
            initialize(part, backbone.config.initial_std)

    def prepare(self, pairs: Sequence[Query], rng: Random) -> Tensors:
        """Texts and regions, hidden in part, half of the texts another pair's; boxes are never hidden.

        Returns: what `masked_texts` does; features [B, R, F] as they are and `hidden` as the network sees them; chosen
            [B, R] bool, the regions that were to be hidden; boxes [B, R, 4]; visual_mask [B, R] bool.
        """
        texts = masked_texts(self.backbone, pairs, rng)
        regions = self.backbone.prepare_images([pair.images[0] for pair in pairs])
        hidden, chosen = mask_regions(regions["features"], regions["mask"], rng)
        return texts | {
            "features": regions["features"],
            "hidden": hidden,
            "chosen": chosen,
            "boxes": regions["boxes"],
            "visual_mask": regions["mask"],
        }

    def head_weights(self) -> Mapping[str, Tensor]:
        """The matching head's row for a match, for a head that ranks."""
        row = slice(MATCHED, MATCHED + 1)
        return {"head.score.weight": self.matching.weight[row], "head.score.bias": self.matching.bias[row]}

    def fused(self, batch: Tensors) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The losses `mlm` and `itm` of a prepared batch, the pooled states [B, D] and those of regions [B, R, D]."""
        network = self.backbone.network
        # A hidden region is zeros after the scale is taken out, as it is for features taken as they are.
        hidden = self.backbone.standardise(batch["hidden"]) * (batch["hidden"] != 0).any(dim=-1, keepdim=True)
        seen = network.see(hidden, batch["boxes"], batch["visual_mask"])
        read = network.read(batch["ids"], batch["text_mask"])
        pooled, text, visual = network.fuse(read, batch["text_mask"], seen, batch["visual_mask"])
        words = self.transform(text) @ network.embeddings.word_embeddings.weight.T + self.word_bias
        losses = {
            "mlm": mlm_loss(words, batch["labels"]),
            "itm": itm_loss(self.matching(pooled), batch["matched"]),
        }
        return losses, pooled, visual


def transform(width: int) -> nn.Sequential:
    """What stands before a prediction about a state, as in BERT: [..., D] -> [..., D]."""
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=EPSILON))
