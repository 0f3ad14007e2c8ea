"""ViLT's pretraining: hidden words, matching with word-patch alignment, and, as an option, hidden patches.

Shapes: B pairs, R patches, P pixels along a patch's side, T text tokens, V words, D width.
Source: Kim et al. 2021 (arXiv 2102.03334) and its official code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Tensors
from vlbench.core.cards import ModelCard
from vlbench.core.examples import Query
from vlbench.core.pretraining import Gather, Option, alone
from vlbench.core.validate import Frozen, parse
from vlbench.data.images.patches import Patches, cut
from vlbench.data.resources import Resources
from vlbench.models.layers.blocks import EPSILON
from vlbench.models.layers.initialize import initialize
from vlbench.models.layers.texts import masked_words
from vlbench.models.vilt.backbone import ViLT, with_class
from vlbench.objectives.itm import itm_loss
from vlbench.objectives.mlm import mlm_loss
from vlbench.objectives.wra import wpa_loss

WPA_WEIGHT = 0.1
HIDDEN_PATCHES, REPLACED = 0.15, 0.8
"""The chance of a patch to be guessed, and of one that is to be hidden."""
LEVELS, CHANNELS = 256, 3
MATCHED = 1
"""The row of the matching head that stands for a match."""


class ViLTPretrainingConfig(Frozen):
    """max_patches: of a picture with more, so many are drawn anew each time. whole_words: whether words are hidden as a
    whole or piece by piece. mpp: masked patch prediction, which the paper tries and leaves out."""

    max_patches: int = Field(default=200, ge=1)
    whole_words: bool = True
    mpp: bool = False


class Guess(nn.Module):
    """What stands for hidden things: a transform and a product; the decoder is not tied to any embedding."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=EPSILON))
        self.decoder = nn.Linear(width, outputs)

    def forward(self, states: Tensor) -> Tensor:
        """States [..., D] -> logits [..., outputs]."""
        logits: Tensor = self.decoder(self.transform(states))
        return logits


class ViLTPretraining(nn.Module):
    """The network with its objectives `mlm`, `itm` and `wpa` (a tenth), and `mpp` where it is asked for.

    Words are hidden from one forward pass, over matching pairs; another one with whole texts tells matching pairs from
    others, and patches are hidden from a third.
    """

    divisible = True

    def __init__(self, backbone: ViLT, config: ViLTPretrainingConfig) -> None:
        super().__init__()
        width, std = backbone.width, backbone.config.initial_std
        self.backbone = backbone
        # From scratch thousands of steps do without centring, as those of the shipped weights did; loaded weights say.
        backbone.centres = False
        self.config = config
        self.words = Guess(width, backbone.text.vocab_size)
        self.matching = nn.Linear(width, 2)
        for part in (self.words, self.matching):
            initialize(part, std)
        if config.mpp:
            self.colours = Guess(width, CHANNELS * LEVELS)
            self.hidden_patch = nn.Parameter(torch.zeros(width))
            initialize(self.colours, std)

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources, options: Mapping[str, Option]) -> Self:
        """Build it at one of the card's sizes; options override the size's numbers.

        Raises:
            VlbenchError: a faulty number or an option there is none of.
        """
        values = {**card.sizes[size].pretraining, **options}
        config = parse(ViLTPretrainingConfig, values, f"pretraining of {card.name}-{size}")
        return cls(ViLT.from_card(card, size, resources), config)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the losses."""
        return ("mlm", "itm", "wpa", *(("mpp",) if self.config.mpp else ()))

    def prepare(self, pairs: Sequence[Query], rng: Random) -> Tensors:
        """Texts with and without hidden words; patches, and which are hidden; half of the pairs get another's picture.

        Returns: ids, hidden_ids, labels [B, T] int64, text_mask [B, T] and words [B, T] bool, the tokens that are
            words; patches, places, grids, visual_mask of the pairs' own pictures; image_rows [B], whose picture a pair
            gets for matching, and matched [B]; with `mpp` chosen and hidden [B, R] bool and colours [B, R, 3] int64.
        """
        text = self.backbone.prepare_texts([pair.text for pair in pairs])
        masked = masked_words(self.backbone, text, rng, whole=self.config.whole_words)
        rows = _image_rows(len(pairs), rng)
        matched = [
            pairs[row].images == pair.images or pairs[row].text == pair.text
            for pair, row in zip(pairs, rows, strict=True)
        ]
        images = self.backbone.arranged([self._drawn(pair, rng) for pair in pairs])
        encoder = self.backbone.text
        ends = (text["ids"] == encoder.id_of("[CLS]")) | (text["ids"] == encoder.id_of("[SEP]"))
        batch = {
            "ids": text["ids"],
            "hidden_ids": masked["ids"],
            "labels": masked["labels"],
            "text_mask": text["mask"],
            "words": text["mask"] & ~ends,
            "patches": images["patches"],
            "places": images["places"],
            "grids": images["grids"],
            "visual_mask": images["mask"],
            "image_rows": torch.tensor(rows),
            "matched": torch.tensor(matched),
        }
        return batch | self._hidden_patches(images, rng) if self.config.mpp else batch

    def _drawn(self, pair: Query, rng: Random) -> Patches:
        """The pair's patches, at most `max_patches` of them."""
        config = self.backbone.config
        picture = self.backbone.pictures.open(pair.images[0])
        patches = cut(picture, config.short_side, config.long_side, config.patch)
        count = len(patches.places)
        if count <= self.config.max_patches:
            return patches
        return patches.take(sorted(rng.sample(range(count), self.config.max_patches)))

    def _hidden_patches(self, images: Tensors, rng: Random) -> Tensors:
        chosen = torch.zeros_like(images["mask"])
        hidden = torch.zeros_like(images["mask"])
        for row, place in images["mask"].nonzero().tolist():
            if rng.random() < HIDDEN_PATCHES:
                chosen[row, place] = True
                hidden[row, place] = rng.random() < REPLACED
        patches = images["patches"]
        pixels = patches.view(*patches.shape[:2], CHANNELS, -1).float()  # [B, R, 3, P * P]
        return {"chosen": chosen, "hidden": hidden, "colours": pixels.mean(dim=-1).long()}

    def losses(self, batch: Tensors) -> Mapping[str, Tensor]:
        """The losses of a prepared batch."""
        projected = self.backbone.network.project(batch["patches"], batch["visual_mask"])
        _, text, _ = self._fused(batch, batch["hidden_ids"], projected)
        losses = {"mlm": mlm_loss(self.words(text), batch["labels"])}
        rows = batch["image_rows"]
        moved = {name: batch[name][rows] for name in ("places", "grids", "visual_mask")}
        pooled, text, visual = self._fused(batch | moved, batch["ids"], projected[rows])
        losses["itm"] = itm_loss(self.matching(pooled), batch["matched"])
        alignment = wpa_loss(text, visual[:, 1:], batch["words"], moved["visual_mask"], batch["matched"])
        losses["wpa"] = WPA_WEIGHT * alignment
        if self.config.mpp:
            losses["mpp"] = self._colour_loss(batch, projected)
        return losses

    def _fused(self, batch: Tensors, ids: Tensor, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled [B, D], text [B, T, D] and visual [B, 1 + R, D] states."""
        network = self.backbone.network
        kinds = torch.zeros(len(projected), dtype=torch.int64, device=projected.device)
        seen = network.place(projected, batch["places"], batch["grids"], kinds)
        return network.fuse(network.read(ids), batch["text_mask"], seen, with_class(batch["visual_mask"]))

    def _colour_loss(self, batch: Tensors, projected: Tensor) -> Tensor:
        """Cross-entropy of the mean red, green and blue, 0 to 255, of the chosen patches; 0 where none was chosen."""
        shown = torch.where(batch["hidden"][..., None], self.hidden_patch.to(projected), projected)
        _, _, visual = self._fused(batch, batch["ids"], shown)
        if not bool(batch["chosen"].any()):
            return visual.sum() * 0.0
        logits = self.colours(visual[:, 1:][batch["chosen"]]).view(-1, LEVELS)
        return functional.cross_entropy(logits, batch["colours"][batch["chosen"]].flatten())

    def after_step(self, gather: Gather = alone) -> None:
        """Second pictures, which pretraining has none of, keep the type of first ones."""
        self.backbone.network.type_second_image()

    def settings(self) -> Mapping[str, Option]:
        """The options as they ran."""
        return self.config.model_dump()

    def head_weights(self) -> Mapping[str, Tensor]:
        """The matching head's row for a match, for a head that ranks."""
        row = slice(MATCHED, MATCHED + 1)
        return {"head.score.weight": self.matching.weight[row], "head.score.bias": self.matching.bias[row]}


def _image_rows(count: int, rng: Random) -> list[int]:
    """For each of `count` pairs the row whose picture it gets: half of them, rounded down, keep their own."""
    own = [place < count // 2 for place in range(count)]
    rng.shuffle(own)
    others = [(row + 1 + int(rng.random() * (count - 1))) % count if count > 1 else row for row in range(count)]
    return [row if kept else other for row, (kept, other) in enumerate(zip(own, others, strict=True))]
