"""LXMERT's pretraining: MLM, ITM, masked region modeling (features and a detector's labels), and question answering.

Shapes: B pairs, R regions, F numbers per region, O object classes, A attributes, C answers, D width.
Source: Tan and Bansal 2019 (arXiv 1908.07490) and its official code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Tensors
from vlbench.core.errors import DataError
from vlbench.core.examples import Query
from vlbench.core.validate import Frozen
from vlbench.models.layers.bert import initialize, perceptron, prediction_transform
from vlbench.models.layers.crossmodal_pretraining import CrossModalPretraining
from vlbench.models.lxmert.backbone import LXMERT
from vlbench.objectives.region import mrc_loss, mrfr_loss

NO_ANSWER = -100
"""The label of a pair without a question, or with a question about another image."""


class LXMERTPretrainingConfig(Frozen):
    """The options of the pretraining.

    objects, attributes: numbers of classes of the detector that labelled the regions; by default those of bottom-up
    attention.
    """

    objects: int = Field(default=1600, ge=1)
    attributes: int = Field(default=400, ge=1)


class LXMERTPretraining(CrossModalPretraining):
    """The network with `mlm`, `itm`, `feat` (region features), `obj` and `attr` (detector labels), equally weighted.

    `learn_answers` adds `qa` if some of the texts are questions with answers.
    """

    backbone_type, config_type = LXMERT, LXMERTPretrainingConfig
    config: LXMERTPretrainingConfig

    def __init__(self, backbone: LXMERT, config: LXMERTPretrainingConfig) -> None:
        super().__init__(backbone, config)
        width = backbone.width
        self.region_transform = prediction_transform(width)
        outputs = {"feat": backbone.config.region_dim, "obj": config.objects, "attr": config.attributes}
        self.region_heads = nn.ModuleDict({name: nn.Linear(width, count) for name, count in outputs.items()})
        for part in (self.region_transform, self.region_heads):
            initialize(part, backbone.config.initial_std)
        self.answers: tuple[str, ...] = ()
        self.answer_head: nn.Sequential | None = None

    @property
    def objectives(self) -> tuple[str, ...]:
        return ("mlm", "itm", "feat", "obj", "attr", *(("qa",) if self.answer_head is not None else ()))

    def learn_answers(self, answers: Sequence[str]) -> None:
        """Add `qa`: a classifier over these answers, trained on pairs of an image and a question about it."""
        width = self.backbone.width
        self.answers = tuple(answers)
        self.answer_head = perceptron(width, len(answers))
        initialize(self.answer_head, self.backbone.config.initial_std)

    def prepare_answers(self, worths: Sequence[Mapping[str, float]], rng: Random) -> Tensors:
        """Draw one answer for each pair, weighted by `worths`: answers [B] int64, NO_ANSWER if none is known."""
        rows = {answer: row for row, answer in enumerate(self.answers)}
        drawn = []
        for values in worths:
            known = [answer for answer in values if answer in rows]
            drawn.append(rows[rng.choices(known, [values[answer] for answer in known])[0]] if known else NO_ANSWER)
        return {"answers": torch.tensor(drawn)}

    def prepare(self, pairs: Sequence[Query], rng: Random) -> Tensors:
        """As `CrossModalPretraining.prepare`, and the detector's labels with its confidences.

        Returns: also obj and attr [B, R] int64, obj_confidence and attr_confidence [B, R] float32 in [0, 1].

        Raises DataError: a label beyond the number of classes.
        """
        batch = super().prepare(pairs, rng)
        most = batch["visual_mask"].shape[1]
        loaded = [self.backbone.load_regions(pair.images[0]) for pair in pairs]
        for pair, regions in zip(pairs, loaded, strict=True):
            _check_labels(regions.object_ids, self.config.objects, "objects", pair)
            _check_labels(regions.attribute_ids, self.config.attributes, "attributes", pair)
        return batch | {
            "obj": _stack([regions.object_ids for regions in loaded], most),
            "obj_confidence": _stack([regions.object_confidences for regions in loaded], most),
            "attr": _stack([regions.attribute_ids for regions in loaded], most),
            "attr_confidence": _stack([regions.attribute_confidences for regions in loaded], most),
        }

    def losses(self, batch: Tensors) -> Mapping[str, Tensor]:
        """The losses of a prepared batch. All regions are classified, masked or not, as in the official code."""
        losses, pooled, visual = self.fused(batch)
        states = self.region_transform(visual)
        features = self.backbone.standardise(batch["features"])
        losses["feat"] = mrfr_loss(self.region_heads["feat"](states), features, batch["chosen"], batch["visual_mask"])
        for name in ("obj", "attr"):
            logits, confidence = self.region_heads[name](states), batch[f"{name}_confidence"]
            losses[name] = mrc_loss(logits, batch[name], confidence, batch["visual_mask"])
        if self.answer_head is not None:
            losses["qa"] = self._answer_loss(self.answer_head, pooled, batch)
        return losses

    def head_weights(self) -> Mapping[str, Tensor]:
        """The matching head's row for a match [1, D], [1], and the classifier over C answers if there is one."""
        classifier = self.answer_head.state_dict() if self.answer_head is not None else {}
        return {**super().head_weights(), **{f"head.classifier.{name}": value for name, value in classifier.items()}}

    def _answer_loss(self, head: nn.Sequential, pooled: Tensor, batch: Tensors) -> Tensor:
        """Mean cross-entropy over pairs of an image and a question about it; 0 if there are none."""
        labels = batch["answers"][batch["text_rows"]]
        labels = torch.where(batch["same_image"], labels, NO_ANSWER)
        if not bool((labels != NO_ANSWER).any()):
            return pooled.sum() * 0.0
        return functional.cross_entropy(head(pooled), labels, ignore_index=NO_ANSWER)


def _check_labels(ids: NDArray[np.int64], classes: int, option: str, pair: Query) -> None:
    if len(ids) and not 0 <= ids.min() <= ids.max() < classes:
        raise DataError(
            f"image {pair.images[0].key!r} has a region labelled {ids.max()} where labels end at {classes - 1}: "
            f"give the detector's number of classes with --set options.{option}=N"
        )


def _stack(rows: Sequence[NDArray[np.generic]], most: int) -> Tensor:
    """Stack rows [R_n] to [B, most]; shorter ones are padded with zeros."""
    return torch.from_numpy(np.stack([np.pad(row, (0, most - len(row))) for row in rows]))
