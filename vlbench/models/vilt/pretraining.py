"""ViLT's pretraining: MLM, ITM with word-patch alignment (WPA), and, as an option, masked patch prediction (MPP).

Shapes: B pairs, R patches, P pixels along a patch's side, T text tokens, V words, D width.
Source: Kim et al. 2021 (arXiv 2102.03334) and its official code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Tensors
from vlbench.core.examples import Query
from vlbench.core.pretraining import Gather, alone
from vlbench.core.validate import Frozen
from vlbench.data.images.patches import Patches, cut
from vlbench.models.layers.bert import initialize, prediction_transform
from vlbench.models.layers.pretraining import ConfiguredPretraining
from vlbench.models.layers.texts import masked_words
from vlbench.models.vilt.backbone import ViLT, with_class
from vlbench.models.vilt.modeling import CHANNELS
from vlbench.objectives.itm import itm_loss
from vlbench.objectives.mlm import mlm_loss
from vlbench.objectives.wra import wpa_loss

WPA_WEIGHT = 0.1
HIDDEN_PATCHES, REPLACED = 0.15, 0.8
"""The probability that a patch is predicted, and that a predicted patch is masked."""
LEVELS = 256


class ViLTPretrainingConfig(Frozen):
    """The options of the pretraining.

    max_patches: this many patches are sampled of an image with more, anew each time. whole_words: mask whole words
    instead of word pieces. mpp: add masked patch prediction, which the paper tries and leaves out.
    """

    max_patches: int = Field(default=200, ge=1)
    whole_words: bool = True
    mpp: bool = False


class PredictionHead(nn.Module):
    """A head that predicts masked inputs: a transform and a decoder, which is not tied to any embedding."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.transform = prediction_transform(width)
        self.decoder = nn.Linear(width, outputs)

    def forward(self, states: Tensor) -> Tensor:
        """States [..., D] -> logits [..., outputs]."""
        logits: Tensor = self.decoder(self.transform(states))
        return logits


class ViLTPretraining(ConfiguredPretraining):
    """The network with its objectives `mlm`, `itm`, `wpa` (weighted 0.1), and `mpp` as an option.

    MLM has a forward pass over matching pairs with masked words; ITM and WPA have a second one with unmasked texts; MPP
    has a third one with masked patches.
    """

    backbone_type, config_type = ViLT, ViLTPretrainingConfig
    backbone: ViLT
    config: ViLTPretrainingConfig

    def __init__(self, backbone: ViLT, config: ViLTPretrainingConfig) -> None:
        super().__init__(backbone, config)
        width, std = backbone.width, backbone.config.initial_std
        # Training from scratch works without centring, as for the shipped weights; loaded weights bring the setting.
        backbone.centres = False
        self.words = PredictionHead(width, backbone.text.vocab_size)
        self.matching = nn.Linear(width, 2)
        for part in (self.words, self.matching):
            initialize(part, std)
        if config.mpp:
            self.colours = PredictionHead(width, CHANNELS * LEVELS)
            self.hidden_patch = nn.Parameter(torch.zeros(width))
            initialize(self.colours, std)

    @property
    def objectives(self) -> tuple[str, ...]:
        return ("mlm", "itm", "wpa", *(("mpp",) if self.config.mpp else ()))

    def prepare(self, pairs: Sequence[Query], rng: Random) -> Tensors:
        """Prepare masked and unmasked texts, patches, and for half of the pairs another pair's image.

        Returns: ids, hidden_ids (after masking), labels [B, T] int64; text_mask [B, T] bool; words [B, T] bool, True
            for tokens but [CLS] and [SEP]; patches, places, grids, visual_mask of the pairs' own images as in
            `ViLT.prepare_images`; image_rows [B] int64, the row whose image a pair gets for ITM; matched [B] bool; with
            `mpp` chosen and hidden [B, R] bool, the patches to predict and to mask, and colours [B, R, 3] int64 in
            [0, 255], their mean colours.
        """
        text = self.backbone.prepare_texts([pair.text for pair in pairs])
        masked = masked_words(self.backbone, text, rng, whole=self.config.whole_words)
        rows = _image_rows(len(pairs), rng)
        matched = [
            pairs[row].images == pair.images or pairs[row].text == pair.text
            for pair, row in zip(pairs, rows, strict=True)
        ]
        images = self.backbone.collate([self._sample_patches(pair, rng) for pair in pairs])
        encoder = self.backbone.text
        ends = (text["ids"] == encoder.id_of("[CLS]")) | (text["ids"] == encoder.id_of("[SEP]"))
        batch = {
            "ids": text["ids"],
            "hidden_ids": masked["ids"],
            "labels": masked["labels"],
            "text_mask": text["mask"],
            "words": text["mask"] & ~ends,
            **{name: images[name] for name in ("patches", "places", "grids")},
            "visual_mask": images["mask"],
            "image_rows": torch.tensor(rows),
            "matched": torch.tensor(matched),
        }
        return batch | self._mask_patches(images, rng) if self.config.mpp else batch

    def _sample_patches(self, pair: Query, rng: Random) -> Patches:
        """Cut the pair's image into patches and sample at most `max_patches` of them."""
        config = self.backbone.config
        image = self.backbone.images.open(pair.images[0])
        patches = cut(image, config.short_side, config.long_side, config.patch)
        count = len(patches.places)
        if count <= self.config.max_patches:
            return patches
        return patches.take(sorted(rng.sample(range(count), self.config.max_patches)))

    def _mask_patches(self, images: Tensors, rng: Random) -> Tensors:
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
        reordered = {name: batch[name][rows] for name in ("places", "grids", "visual_mask")}
        pooled, text, visual = self._fused(batch | reordered, batch["ids"], projected[rows])
        losses["itm"] = itm_loss(self.matching(pooled), batch["matched"])
        alignment = wpa_loss(text, visual[:, 1:], batch["words"], reordered["visual_mask"], batch["matched"])
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
        """Cross-entropy of the mean red, green and blue, 0 to 255, of the chosen patches; 0 if none was chosen."""
        masked = torch.where(batch["hidden"][..., None], self.hidden_patch.to(projected), projected)
        _, _, visual = self._fused(batch, batch["ids"], masked)
        if not bool(batch["chosen"].any()):
            return visual.sum() * 0.0
        logits = self.colours(visual[:, 1:][batch["chosen"]]).view(-1, LEVELS)
        return functional.cross_entropy(logits, batch["colours"][batch["chosen"]].flatten())

    def after_step(self, gather: Gather = alone) -> None:
        """Copy the first image's type to the second image's, which pretraining does not use."""
        self.backbone.network.type_second_image()


def _image_rows(count: int, rng: Random) -> list[int]:
    """For each of `count` pairs the row whose image it gets: half of them, rounded down, keep their own."""
    own = [place < count // 2 for place in range(count)]
    rng.shuffle(own)
    others = [(row + 1 + int(rng.random() * (count - 1))) % count if count > 1 else row for row in range(count)]
    return [row if kept else other for row, (kept, other) in enumerate(zip(own, others, strict=True))]
