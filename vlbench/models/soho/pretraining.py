"""SOHO's pretraining: MLM, masked visual modeling (MVM) over the dictionary, and ITM.

Shapes: B pairs, N distinct images among them, h x w cells, R = h * w, K entries, T tokens, D width.
Source: Huang et al. 2021 (arXiv 2104.03135) and its official code; where they differ, an option names both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Tensors
from vlbench.core.examples import Query
from vlbench.core.validate import Frozen
from vlbench.models.layers.pretraining import ConfiguredPretraining
from vlbench.models.layers.texts import masked_texts
from vlbench.models.soho.backbone import SOHO
from vlbench.objectives.itm import itm_loss
from vlbench.objectives.mlm import mlm_loss
from vlbench.objectives.region import mask_cells, mvm_loss

MasksFrom = Literal["paper", "official"]
SHARES: dict[MasksFrom, float] = {"paper": 0.15, "official": 0.015}
"""The probability that an image has cells masked."""


class SOHOPretrainingConfig(Frozen):
    """The options of the pretraining.

    masks: how often an image has cells masked, as in the `paper` (15 %) or in the `official` code (1.5 %). The paper's
    rate is the default: at the other one a batch rarely trains this objective.
    """

    masks: MasksFrom = "paper"


class SOHOPretraining(ConfiguredPretraining):
    """The network with its objectives `mlm`, `mvm` and `itm`, weighted 1 : 1 : 1; no `mvm` without a dictionary."""

    divisible = False  # every forward pass updates the dictionary
    backbone_type, config_type = SOHO, SOHOPretrainingConfig
    backbone: SOHO
    config: SOHOPretrainingConfig

    def __init__(self, backbone: SOHO, config: SOHOPretrainingConfig) -> None:
        super().__init__(backbone, config)
        backbone.network.neck.lookup = True
        self.mask_embedding = nn.Embedding(1, backbone.width)
        self.matching = nn.Linear(backbone.width, 2, bias=False)
        for part in (self.mask_embedding, self.matching):
            nn.init.normal_(part.weight, std=backbone.config.initial_std)

    @property
    def objectives(self) -> tuple[str, ...]:
        return ("mlm", "itm") if self.backbone.config.token == "none" else ("mlm", "itm", "mvm")

    def prepare(self, pairs: Sequence[Query], rng: Random) -> Tensors:
        """Prepare masked texts, each image once, and a seed for masking cells.

        Returns: the result of `masked_texts` and of `SOHO.prepare_images` for the N distinct images; image_rows [B]
            int64, the row of each pair's image; mask_seed [] int64.
        """
        texts = masked_texts(self.backbone, pairs, rng)
        refs = list({pair.images[0]: None for pair in pairs})
        return texts | {
            "image_rows": torch.tensor([refs.index(pair.images[0]) for pair in pairs]),
            # Which cells share an entry is known only after the look-up.
            "mask_seed": torch.tensor(int(rng.random() * 2**53)),
            **self.backbone.prepare_images(refs),
        }

    def losses(self, batch: Tensors) -> Mapping[str, Tensor]:
        """The losses of a prepared batch; in training mode the dictionary follows the images."""
        network, rows = self.backbone.network, batch["image_rows"]
        cells = network.look(batch["pixels"], batch["sizes"])
        mask = cells.mask.flatten(1)
        hidden = self._hidden(cells.codes, mask, batch["mask_seed"])
        tokens = torch.where(hidden[..., None], self.mask_embedding.weight.to(cells.tokens), cells.tokens)
        seen = network.neck.place(tokens, cells.mask)[rows]
        text, visual = network.fuse(network.embeddings(batch["ids"]), batch["text_mask"], seen, mask[rows])
        words = text @ network.embeddings.word_embeddings.weight.T
        losses = {"mlm": mlm_loss(words, batch["labels"]), "itm": itm_loss(self.matching(text[:, 0]), batch["matched"])}
        if cells.codes is not None:
            chosen = hidden[rows]
            losses["mvm"] = mvm_loss(self._entry_logits(visual[chosen]), cells.codes[rows][chosen])
        return losses

    def _hidden(self, codes: Tensor | None, mask: Tensor, seed: Tensor) -> Tensor:
        """The mask [N, R] bool of the hidden cells, drawn from the seed of `prepare`; none without a dictionary."""
        if codes is None:
            return torch.zeros_like(mask)
        share = SHARES[self.config.masks]
        return mask_cells(codes.cpu(), mask.cpu(), Random(int(seed)), share).to(mask.device)

    def _entry_logits(self, states: Tensor) -> Tensor:
        """Cosines [P, K] of states [P, D] and the entries."""
        # A copy, because entries are updated in place before the backward pass.
        entries = self.backbone.network.neck.dictionary.entries.clone()
        return functional.normalize(states, dim=-1) @ functional.normalize(entries, dim=-1).to(states).T
