"""The detector as an extractor, from an image's pixels to its regions.

Shapes: R regions, H x W pixels.
"""

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
"""The mean of ImageNet's pixels in [0, 255], which Caffe's models subtract."""
_VERSION = 1
"""Increased when the same weights give other regions."""


class DetectorExtractor:
    """An `Extractor` over the network; its result for an image is bit-identical in any order of images."""

    def __init__(self, network: FasterRCNN, weights: str, device: torch.device) -> None:
        """weights: the hash of their file, or their seed; a part of `name`, like the hash of the rules."""
        self.network = network.to(device)
        self.device = device
        self.dim = network.layout.dim
        settings = hashlib.sha256(repr((network.layout, network.rules)).encode()).hexdigest()
        self.name = f"fasterrcnn-{_VERSION}-{settings[:12]}-{weights[:32]}"

    @torch.inference_mode()
    def __call__(self, pixels: NDArray[np.uint8]) -> Regions:
        """Extract the regions of an image [H, W, 3] uint8 in RGB; boxes are in its pixels."""
        height, width, _ = pixels.shape
        scaled = prepared(torch.from_numpy(pixels.copy()).to(self.device), self.network.rules)
        (found,) = self.network([scaled])
        scale = found.boxes.new_tensor([width / scaled.shape[2], height / scaled.shape[1]] * 2)
        return regions_of(found, found.boxes * scale, width, height)


def prepared(pixels: Tensor, rules: Rules) -> Tensor:
    """Scale pixels [H, W, 3] in RGB, 0 to 255 -> the network's input [3, H', W'], in BGR minus the mean.

    The short side becomes `rules.short_side`, or the long side `rules.long_side` if that gives a smaller image.
    """
    height, width, _ = pixels.shape
    scale = min(rules.short_side / min(height, width), rules.long_side / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    bgr = pixels.flip(-1).float() - torch.tensor(_MEAN_BGR, device=pixels.device)
    return functional.interpolate(bgr.permute(2, 0, 1)[None], size, mode="bilinear", align_corners=False)[0]


def regions_of(found: Found, boxes: Tensor, width: int, height: int) -> Regions:
    """Convert detected regions to `Regions`, with boxes [R, 4] in pixels of an image of `width` x `height`.

    All numbers become float32, whatever the network's type: NumPy has no bfloat16.
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
