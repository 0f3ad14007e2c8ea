"""Masked region modelling: guess what a hidden region shows.

Shapes: N pictures, R regions, F numbers per region, C classes.
"""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor
from torch.nn import functional

HIDDEN, SWAPPED = 0.8, 0.1
"""Of the chosen regions, the share that becomes zeros and the share that becomes another picture's; the rest stays."""


def mask_regions(features: Tensor, mask: Tensor, rng: Random, share: float = 0.15) -> tuple[Tensor, Tensor]:
    """Choose regions and hide them: the features as the model sees them [N, R, F], and which were chosen [N, R] bool.

    Args:
        features: [N, R, F].
        mask: [N, R] bool, True where a region is real; padding is never chosen.
        rng: all chance.
        share: the chance of each region to be chosen.

    Source: Tan and Bansal 2019 (LXMERT); boxes are never hidden.
    """
    seen, chosen = features.clone(), torch.zeros_like(mask)
    real = mask.nonzero().tolist()
    for picture, region in real:
        if rng.random() < share:
            chosen[picture, region] = True
            chance = rng.random()
            if chance < HIDDEN:
                seen[picture, region] = 0.0
            elif chance < HIDDEN + SWAPPED:
                seen[picture, region] = features[tuple(real[int(rng.random() * len(real))])]
    return seen, chosen


def mrfr_loss(predicted: Tensor, features: Tensor, chosen: Tensor, mask: Tensor, share: float = 0.15) -> Tensor:
    """Region-feature regression by LXMERT: smooth L1 of predicted and true features [N, R, F], averaged over F and real
    regions.

    Regions not chosen [N, R] count 0, those outside the mask [N, R] not at all, and the mean is divided by `share`, so
    that it is about that of chosen regions.
    Source: Tan and Bansal 2019, official code.
    """
    each = functional.smooth_l1_loss(predicted, features, reduction="none").mean(dim=-1)
    return (each * chosen).sum() / mask.sum().clamp(min=1) / share


def mrc_loss(logits: Tensor, classes: Tensor, confidences: Tensor, mask: Tensor, share: float = 0.15) -> Tensor:
    """Region classification: cross-entropy with the detector's labels, weighted by its confidences.

    logits [N, R, C], classes [N, R] int64, confidences [N, R] in [0, 1], mask [N, R]: the mean over real regions,
    chosen or not, divided by `share`. Source: Tan and Bansal 2019, official code (all regions).
    """
    each = functional.cross_entropy(logits.transpose(1, 2), classes, reduction="none") * confidences
    return (each * mask).sum() / mask.sum().clamp(min=1) / share


def mrfr_mse_loss(predicted: Tensor, features: Tensor, chosen: Tensor) -> Tensor:
    """Region-feature regression: the mean squared error over the numbers of chosen regions.

    predicted and features [N, R, F], chosen [N, R] bool; 0 where none was chosen.

    Source: Chen et al. 2020 (UNITER), official code.
    """
    if not bool(chosen.any()):
        return predicted.sum() * 0.0
    return functional.mse_loss(predicted[chosen], features[chosen])


def mrc_argmax_loss(logits: Tensor, probabilities: Tensor, chosen: Tensor) -> Tensor:
    """Region classification: the mean over chosen regions of the cross-entropy with the detector's likeliest class.

    logits and probabilities [N, R, C], chosen [N, R] bool; class 0 is the background, which is never the label. 0 where
    none was chosen.

    Source: Chen et al. 2020 (UNITER), official code.
    """
    if not bool(chosen.any()):
        return logits.sum() * 0.0
    labels = probabilities[chosen][:, 1:].argmax(dim=-1) + 1
    return functional.cross_entropy(logits[chosen], labels)


def mrc_kl_loss(logits: Tensor, probabilities: Tensor, chosen: Tensor) -> Tensor:
    """Region classification: KL(probabilities || softmax(logits)), the mean over chosen regions and over classes.

    logits and probabilities [N, R, C], chosen [N, R] bool; 0 where none was chosen. The mean over classes makes it C
    times smaller than the divergence itself.

    Source: Chen et al. 2020 (UNITER), official code.
    """
    if not bool(chosen.any()):
        return logits.sum() * 0.0
    return functional.kl_div(logits[chosen].log_softmax(dim=-1), probabilities[chosen], reduction="none").mean()
