"""LXMERT's pretraining: masked words, matching, hidden regions by features and by a detector's labels, and answers.

Shapes: B pairs, R regions, F numbers per region, O object classes, A attributes, C answers, D width.
Source: Tan and Bansal 2019 (arXiv 1908.07490) and its official code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Tensors
from vlbench.core.cards import ModelCard
from vlbench.core.errors import DataError
from vlbench.core.examples import Query
from vlbench.core.pretraining import Gather, Option, alone
from vlbench.core.validate import Frozen, parse
from vlbench.data.resources import Resources
from vlbench.models.layers.blocks import EPSILON
from vlbench.models.layers.crossmodal_pretraining import CrossModalPretraining, transform
from vlbench.models.layers.initialize import initialize
from vlbench.models.lxmert.backbone import LXMERT
from vlbench.objectives.region import mrc_loss, mrfr_loss

NO_ANSWER = -100
"""The answer of a pair that is no question, or whose question is another picture's."""


class LXMERTPretrainingConfig(Frozen):
    """objects, attributes: classes of the detector that labelled the regions; those of bottom-up attention."""

    objects: int = Field(default=1600, ge=1)
    attributes: int = Field(default=400, ge=1)


class LXMERTPretraining(CrossModalPretraining):
    """The network with `mlm`, `itm`, `feat` (region features), `obj`, `attr` (a detector's labels), weighted alike.

    Where some of the texts are questions with answers, `qa` joins them: see `learn_answers`.
    """

    def __init__(self, backbone: LXMERT, config: LXMERTPretrainingConfig) -> None:
        super().__init__(backbone)
        width = backbone.width
        self.config = config
        self.region_transform = transform(width)
        self.region_heads = nn.ModuleDict(
            {
                "feat": nn.Linear(width, backbone.config.region_dim),
                "obj": nn.Linear(width, config.objects),
                "attr": nn.Linear(width, config.attributes),
            }
        )
        for part in (self.region_transform, self.region_heads):
            initialize(part, backbone.config.initial_std)
        self.answers: tuple[str, ...] = ()
        self.answer_head: nn.Sequential | None = None

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources, options: Mapping[str, Option]) -> Self:
        """Build it at one of the card's sizes; options override the size's numbers.

        Raises:
            VlbenchError: a faulty number or an option there is none of.
        """
        values = {**card.sizes[size].pretraining, **options}
        config = parse(LXMERTPretrainingConfig, values, f"pretraining of {card.name}-{size}")
        return cls(LXMERT.from_card(card, size, resources), config)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the losses."""
        return ("mlm", "itm", "feat", "obj", "attr", *(("qa",) if self.answer_head is not None else ()))

    def learn_answers(self, answers: Sequence[str]) -> None:
        """Take `qa` in: a classifier over these answers, asked where a pair is a question about its own picture."""
        width = self.backbone.width
        self.answers = tuple(answers)
        self.answer_head = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.LayerNorm(2 * width, eps=EPSILON),
            nn.Linear(2 * width, len(answers)),
        )
        initialize(self.answer_head, self.backbone.config.initial_std)

    def prepare_answers(self, worths: Sequence[Mapping[str, float]], rng: Random) -> Tensors:
        """One answer for each pair, drawn by what it is worth: answers [B] int64, NO_ANSWER where none is known."""
        rows = {answer: row for row, answer in enumerate(self.answers)}
        drawn = []
        for values in worths:
            known = [answer for answer in values if answer in rows]
            drawn.append(rows[rng.choices(known, [values[answer] for answer in known])[0]] if known else NO_ANSWER)
        return {"answers": torch.tensor(drawn)}

    def prepare(self, pairs: Sequence[Query], rng: Random) -> Tensors:
        """What the base class makes, and the detector's labels with its confidences, each [B, R].

        Raises:
            DataError: a label beyond the classes that there are heads for.
        """
        batch = super().prepare(pairs, rng)
        most = batch["visual_mask"].shape[1]
        found = [self.backbone.look(pair.images[0]) for pair in pairs]
        for pair, regions in zip(pairs, found, strict=True):
            _check(regions.object_ids, self.config.objects, "objects", pair)
            _check(regions.attribute_ids, self.config.attributes, "attributes", pair)
        return batch | {
            "obj": _stack([regions.object_ids for regions in found], most),
            "obj_confidence": _stack([regions.object_confidences for regions in found], most),
            "attr": _stack([regions.attribute_ids for regions in found], most),
            "attr_confidence": _stack([regions.attribute_confidences for regions in found], most),
        }

    def losses(self, batch: Tensors) -> Mapping[str, Tensor]:
        """The losses of a prepared batch. Labels are asked of all regions, hidden or not, as in the official code."""
        losses, pooled, visual = self.fused(batch)
        states = self.region_transform(visual)
        features = self.backbone.standardise(batch["features"])
        losses["feat"] = mrfr_loss(self.region_heads["feat"](states), features, batch["chosen"], batch["visual_mask"])
        for name in ("obj", "attr"):
            logits, confidence = self.region_heads[name](states), batch[f"{name}_confidence"]
            losses[name] = mrc_loss(logits, batch[name], confidence, batch["visual_mask"])
        if self.answer_head is not None:
            losses["qa"] = self._answer_loss(pooled, batch)
        return losses

    def head_weights(self) -> Mapping[str, Tensor]:
        """The matching head's row for a match, and the classifier over answers where there is one."""
        answering = self.answer_head.state_dict() if self.answer_head is not None else {}
        return {**super().head_weights(), **{f"head.classifier.{name}": value for name, value in answering.items()}}

    def _answer_loss(self, pooled: Tensor, batch: Tensors) -> Tensor:
        """Mean cross-entropy over the questions about their own picture; 0 where there is none."""
        assert self.answer_head is not None
        asked = batch["answers"][batch["text_rows"]]
        asked = torch.where(batch["same_picture"], asked, NO_ANSWER)
        if not bool((asked != NO_ANSWER).any()):
            return pooled.sum() * 0.0
        return functional.cross_entropy(self.answer_head(pooled), asked, ignore_index=NO_ANSWER)

    def settings(self) -> Mapping[str, Option]:
        """The options as they ran."""
        return self.config.model_dump()

    def after_step(self, gather: Gather = alone) -> None:
        """Nothing follows a step."""


def _check(ids: NDArray[np.int64], classes: int, option: str, pair: Query) -> None:
    if len(ids) and not 0 <= ids.min() <= ids.max() < classes:
        raise DataError(
            f"picture {pair.images[0].key!r} has a region labelled {ids.max()} where labels end at {classes - 1}: "
            f"give the detector's number of classes with --set options.{option}=N"
        )


def _stack(rows: Sequence[NDArray[np.generic]], most: int) -> Tensor:
    """Rows [R_n] to [B, most], zeros behind the shorter ones."""
    stacked = np.zeros((len(rows), most), rows[0].dtype)
    for place, row in enumerate(rows):
        stacked[place, : len(row)] = row
    return torch.from_numpy(stacked)
