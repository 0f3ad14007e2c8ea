"""SOHO's pretraining: masked words, masked cells of the dictionary, and matching.

Shapes: B pairs, N distinct pictures of theirs, h x w cells, R = h * w, K entries, T tokens, D width.
Source: Huang et al. 2021 (arXiv 2104.03135) and its official code; where they differ an option names both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Tensors
from vlbench.core.cards import ModelCard
from vlbench.core.examples import Query
from vlbench.core.pretraining import Gather, Option, alone
from vlbench.core.validate import Frozen, parse
from vlbench.data.resources import Resources
from vlbench.models.layers.texts import masked_texts
from vlbench.models.soho.backbone import SOHO
from vlbench.objectives.itm import itm_loss
from vlbench.objectives.mlm import mlm_loss
from vlbench.objectives.mvm import mask_cells, mvm_loss

MasksFrom = Literal["paper", "official"]
MATCHED = 1
"""The row of the matching head that stands for a match."""
SHARES: dict[MasksFrom, float] = {"paper": 0.15, "official": 0.015}
"""Of pictures that have cells hidden."""


class SOHOPretrainingConfig(Frozen):
    """masks: how often a picture has cells hidden, as the `paper` says (15 %) or as the `official` code does (1.5 %).
    The paper's is the default: at the other's rate a batch hardly ever trains this objective."""

    masks: MasksFrom = "paper"


class SOHOPretraining(nn.Module):
    """The network with its objectives `mlm`, `mvm` and `itm`, weighted 1 : 1 : 1; without a dictionary no `mvm`."""

    divisible = False  # entries of the dictionary move in every forward pass

    def __init__(self, backbone: SOHO, config: SOHOPretrainingConfig) -> None:
        super().__init__()
        self.backbone = backbone
        backbone.network.neck.lookup = True
        self.config = config
        self.mask_embedding = nn.Embedding(1, backbone.width)
        self.matching = nn.Linear(backbone.width, 2, bias=False)
        for part in (self.mask_embedding, self.matching):
            nn.init.normal_(part.weight, std=backbone.config.initial_std)

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources, options: Mapping[str, Option]) -> Self:
        """Build it at one of the card's sizes; options override the size's numbers.

        Raises:
            VlbenchError: a faulty number or an option there is none of.
        """
        values = {**card.sizes[size].pretraining, **options}
        config = parse(SOHOPretrainingConfig, values, f"pretraining of {card.name}-{size}")
        return cls(SOHO.from_card(card, size, resources), config)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the losses."""
        return ("mlm", "itm") if self.backbone.config.token == "none" else ("mlm", "itm", "mvm")

    def prepare(self, pairs: Sequence[Query], rng: Random) -> Tensors:
        """Texts, hidden in part, half of them another pair's; each picture once; and the chance that hides cells."""
        texts = masked_texts(self.backbone, pairs, rng)
        refs = list({pair.images[0]: None for pair in pairs})
        return texts | {
            "image_rows": torch.tensor([refs.index(pair.images[0]) for pair in pairs]),
            # Which cells share an entry is known only when they are looked up.
            "chance": torch.tensor(int(rng.random() * 2**53)),
            **self.backbone.prepare_images(refs),
        }

    def losses(self, batch: Tensors) -> Mapping[str, Tensor]:
        """The three losses of a prepared batch; the dictionary follows the pictures while training."""
        network, pictures = self.backbone.network, batch["image_rows"]
        looked = network.look(batch["pixels"], batch["sizes"])
        mask = looked.mask.flatten(1)
        hidden = self._hidden(looked.codes, mask, batch["chance"])
        tokens = torch.where(hidden[..., None], self.mask_embedding.weight.to(looked.tokens), looked.tokens)
        seen = network.neck.place(tokens, looked.mask)[pictures]
        text, visual = network.fuse(network.read(batch["ids"]), batch["text_mask"], seen, mask[pictures])
        words = text @ network.embeddings.word_embeddings.weight.T
        losses = {
            "mlm": mlm_loss(words, batch["labels"]),
            "itm": itm_loss(self.matching(text[:, 0]), batch["matched"]),
        }
        if looked.codes is not None:
            chosen = hidden[pictures]
            losses["mvm"] = mvm_loss(self._entry_logits(visual[chosen]), looked.codes[pictures][chosen])
        return losses

    def _hidden(self, codes: Tensor | None, mask: Tensor, chance: Tensor) -> Tensor:
        """Which cells [N, R] are hidden, by what `prepare` drew; none without a dictionary."""
        if codes is None:
            return torch.zeros_like(mask)
        share = SHARES[self.config.masks]
        return mask_cells(codes.cpu(), mask.cpu(), Random(int(chance)), share).to(mask.device)

    def _entry_logits(self, states: Tensor) -> Tensor:
        """Cosines [P, K] of states [P, D] and the entries."""
        # A copy, because entries move in place before the gradient has come back.
        entries = self.backbone.network.neck.dictionary.entries.clone()
        return functional.normalize(states, dim=-1) @ functional.normalize(entries, dim=-1).to(states).T

    def after_step(self, gather: Gather = alone) -> None:
        """Nothing follows: entries move as pictures are looked at."""

    def settings(self) -> Mapping[str, Option]:
        """The options as they ran."""
        return self.config.model_dump()

    def head_weights(self) -> Mapping[str, Tensor]:
        """The matching head's row for a match, for a head that ranks."""
        return {
            "head.score.weight": self.matching.weight[MATCHED : MATCHED + 1],
            "head.score.bias": self.matching.weight.new_zeros(1),
        }
