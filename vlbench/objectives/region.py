"""Masked region modeling (MRM): predict features or classes of masked regions, or entries of masked cells (MVM).

Shapes: N images, R regions or cells, F numbers per region, C classes, K entries of a dictionary, P masked cells.
"""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor
from torch.nn import functional

HIDDEN, SWAPPED = 0.8, 0.1
"""The fractions of chosen regions that become zeros and that become a random region; the rest stays unchanged."""


def mask_regions(features: Tensor, mask: Tensor, rng: Random, share: float = 0.15) -> tuple[Tensor, Tensor]:
    """Choose the regions to predict, each with probability `share`, and mask their features [N, R, F].

    mask [N, R] bool: True where a region is real; padding is never chosen. Returns the features after masking
    [N, R, F], and the chosen regions [N, R] bool.

    Source: Tan and Bansal 2019 (LXMERT); boxes are never masked.
    """
    masked, chosen = features.clone(), torch.zeros_like(mask)
    real = mask.nonzero().tolist()
    for image, region in real:
        if rng.random() < share:
            chosen[image, region] = True
            draw = rng.random()
            if draw < HIDDEN:
                masked[image, region] = 0.0
            elif draw < HIDDEN + SWAPPED:
                masked[image, region] = features[tuple(real[int(rng.random() * len(real))])]
    return masked, chosen


def mrfr_loss(predicted: Tensor, features: Tensor, chosen: Tensor, mask: Tensor, share: float = 0.15) -> Tensor:
    """Region feature regression of LXMERT: the mean smooth L1 loss over features and real regions, a scalar.

    Regions that are not chosen count as 0. The mean is divided by `share`, so that it is near that of the chosen.

    predicted and true features [N, R, F], chosen and mask [N, R] bool; the mask is True where a region is real.

    Source: Tan and Bansal 2019, official code.
    """
    each = functional.smooth_l1_loss(predicted, features, reduction="none").mean(dim=-1)
    return (each * chosen).sum() / mask.sum().clamp(min=1) / share


def mrc_loss(logits: Tensor, classes: Tensor, confidences: Tensor, mask: Tensor, share: float = 0.15) -> Tensor:
    """Region classification of LXMERT: cross-entropy with the detector's labels, weighted by its confidences, a scalar.

    The mean over real regions, chosen or not, divided by `share`. logits [N, R, C], classes [N, R] int64, confidences
    [N, R] in [0, 1], mask [N, R] bool, True where a region is real.

    Source: Tan and Bansal 2019, official code (all regions).
    """
    each = functional.cross_entropy(logits.transpose(1, 2), classes, reduction="none") * confidences
    return (each * mask).sum() / mask.sum().clamp(min=1) / share


def mrfr_mse_loss(predicted: Tensor, features: Tensor, chosen: Tensor) -> Tensor:
    """Region feature regression of UNITER: the mean squared error over the features of chosen regions, a scalar.

    predicted and features [N, R, F], chosen [N, R] bool; 0 if none is chosen.

    Source: Chen et al. 2020 (UNITER), official code.
    """
    if not bool(chosen.any()):
        return predicted.sum() * 0.0
    return functional.mse_loss(predicted[chosen], features[chosen])


def mrc_argmax_loss(logits: Tensor, probabilities: Tensor, chosen: Tensor) -> Tensor:
    """Region classification of UNITER: the mean cross-entropy of chosen regions with the detector's likeliest class.

    logits and probabilities [N, R, C], chosen [N, R] bool; 0 if none is chosen. Class 0 is the background, which is
    never the label.

    Source: Chen et al. 2020 (UNITER), official code.
    """
    if not bool(chosen.any()):
        return logits.sum() * 0.0
    labels = probabilities[chosen][:, 1:].argmax(dim=-1) + 1
    return functional.cross_entropy(logits[chosen], labels)


def mrc_kl_loss(logits: Tensor, probabilities: Tensor, chosen: Tensor) -> Tensor:
    """Region classification of UNITER: the mean KL(probabilities || softmax(logits)) over chosen regions and classes.

    logits and probabilities [N, R, C], chosen [N, R] bool; 0 if none is chosen. The mean over classes makes it C times
    smaller than the divergence itself.

    Source: Chen et al. 2020 (UNITER), official code.
    """
    if not bool(chosen.any()):
        return logits.sum() * 0.0
    return functional.kl_div(logits[chosen].log_softmax(dim=-1), probabilities[chosen], reduction="none").mean()


def mask_cells(codes: Tensor, mask: Tensor, rng: Random, share: float) -> Tensor:
    """Draw the cells to mask: in each image, all real cells with the same entry as one that is drawn at random.

    codes [N, R] int64: the entry of each cell. mask [N, R] bool: True where a cell is real; padding is never masked.
    share: the probability that an image has cells masked. Returns [N, R] bool, True for masked cells.

    Source: Huang et al. 2021 (SOHO). The official code draws one cell for a whole batch.
    """
    hidden = torch.zeros_like(mask)
    for image in range(len(codes)):
        real = mask[image].nonzero()[:, 0].tolist()
        if real and rng.random() < share:
            code = codes[image, real[int(rng.random() * len(real))]]
            hidden[image] = mask[image] & (codes[image] == code)
    return hidden


def mvm_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """Mean cross-entropy of masked cells' logits [P, K] and entries `codes` [P] int64, a scalar; 0 if there are none.

    Source: Huang et al. 2021 (SOHO).
    """
    return functional.cross_entropy(logits, codes) if len(codes) else logits.sum() * 0.0
