"""The detector as an extractor: a picture's pixels in, its regions out."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vlbench.data.regions.types import Regions
from vlbench.models.detector.config import Rules
from vlbench.models.detector.network import FasterRCNN, Found

_MEAN_BGR = (102.9801, 115.9465, 122.7717)
"""Of ImageNet's pixels in [0, 255], as Caffe's models subtract it."""
_VERSION = 1
"""Counts up when the same weights would give other regions."""


class DetectorExtractor:
    """An `Extractor` over the network; the same bits whatever was described before."""

    def __init__(self, network: FasterRCNN, weights: str, device: torch.device) -> None:
        """weights: what names them, the hash of their file or their seed; it is a part of `name`, as the rules are."""
        self.network = network.to(device)
        self.device = device
        self.dim = network.layout.dim
        settings = hashlib.sha256(repr((network.layout, network.rules)).encode()).hexdigest()
        self.name = f"fasterrcnn-{_VERSION}-{settings[:12]}-{weights[:32]}"

    @torch.inference_mode()
    def __call__(self, pixels: NDArray[np.uint8]) -> Regions:
        """Describe a picture [H, W, 3] in RGB; boxes are in its own pixels."""
        height, width, _ = pixels.shape
        scaled = prepared(torch.from_numpy(pixels.copy()).to(self.device), self.network.rules)
        (found,) = self.network([scaled])
        scale = found.boxes.new_tensor([width / scaled.shape[2], height / scaled.shape[1]] * 2)
        return regions_of(found, found.boxes * scale, width, height)


def prepared(pixels: Tensor, rules: Rules) -> Tensor:
    """Pixels [H, W, 3] of 0 to 255 in RGB -> the network's input [3, H', W'], in BGR minus the mean, bilinearly scaled.

    The short side becomes `rules.short_side`, or the long one `rules.long_side` where that is smaller.
    """
    height, width, _ = pixels.shape
    scale = min(rules.short_side / min(height, width), rules.long_side / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    bgr = pixels.flip(-1).float() - torch.tensor(_MEAN_BGR, device=pixels.device)
    return functional.interpolate(bgr.permute(2, 0, 1)[None], size, mode="bilinear", align_corners=False)[0]


def regions_of(found: Found, boxes: Tensor, width: int, height: int) -> Regions:
    """What was found in a picture of that size, its boxes [R, 4] in the picture's own pixels.

    Numbers come back as float32 whatever the network computed in: NumPy has no bfloat16.
    """
    classes, attributes = found.described.classes.max(-1), found.described.attributes.max(-1)
    return Regions(
        width=width,
        height=height,
        boxes=boxes.float().cpu().numpy(),
        features=found.described.features.float().cpu().numpy(),
        object_ids=classes.indices.cpu().numpy(),
        object_confidences=classes.values.float().cpu().numpy(),
        attribute_ids=attributes.indices.cpu().numpy(),
        attribute_confidences=attributes.values.float().cpu().numpy(),
    )
