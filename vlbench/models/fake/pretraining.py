"""Pretraining of the fake model: image-text matching (ITM).

Shapes: B pairs, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Tensors
from vlbench.core.cards import ModelCard
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Query
from vlbench.core.pretraining import Gather, Option, alone
from vlbench.data.resources import Resources
from vlbench.models.fake.backbone import Fake


class FakePretraining(nn.Module):
    """The model with `itm`, where half of the pairs get a neighbour's text, and `size`, which keeps features small.

    steps: the number of updates.
    """

    steps: Tensor

    divisible = True

    def __init__(self, backbone: Fake) -> None:
        super().__init__()
        self.backbone = backbone
        self.matching = nn.Linear(backbone.width, 1)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources, options: Mapping[str, Option]) -> Self:
        """Build it; it has no options. Raises VlbenchError: an option is given."""
        if options:
            raise VlbenchError(f"{card.name}'s pretraining has no option {', '.join(options)}: leave it out")
        return cls(Fake.from_card(card, size, resources))

    @property
    def objectives(self) -> tuple[str, ...]:
        return ("itm", "size")

    def prepare(self, pairs: Sequence[Query], rng: Random) -> Tensors:
        """The hashes of images [B, D] and texts [B, D], and whether they match [B] float32."""
        matched = [rng.random() < 0.5 for _ in pairs]
        texts = [pairs[row if match else row - 1].text for row, match in enumerate(matched)]
        return {
            "images": self.backbone.prepare_images([pair.images[0] for pair in pairs])["hash"],
            "texts": self.backbone.prepare_texts(texts)["hash"],
            "matched": torch.tensor(matched, dtype=torch.float32),
        }

    def losses(self, batch: Tensors) -> Mapping[str, Tensor]:
        """Binary cross-entropy of the match, and 0.01 times the mean square of the features."""
        seen = self.backbone.see({"hash": batch["images"]}, torch.zeros(len(batch["images"]), dtype=torch.int64))
        pooled = self.backbone.fuse(seen, self.backbone.read({"hash": batch["texts"]})).pooled
        itm = functional.binary_cross_entropy_with_logits(self.matching(pooled)[:, 0], batch["matched"])
        return {"itm": itm, "size": 0.01 * pooled.square().mean()}

    def after_step(self, gather: Gather = alone) -> None:
        """Count the update."""
        self.steps += 1

    def settings(self) -> Mapping[str, Option]:
        return {}

    def head_weights(self) -> Mapping[str, Tensor]:
        """The matching head, as a ranking head: weight [1, D], bias [1]."""
        return {"head.score.weight": self.matching.weight, "head.score.bias": self.matching.bias}
