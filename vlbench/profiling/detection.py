"""The detector of a region model as stages, divided as its own code divides it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vlbench.core.examples import ImageRef
from vlbench.models.detector.extractor import prepared, regions_of
from vlbench.models.detector.network import Described, FasterRCNN, Found
from vlbench.models.detector.proposals import Candidates
from vlbench.profiling.inputs import DecodedImages, DetectedRegions
from vlbench.profiling.timing import Stage


class DetectorStages:
    """A detector that computes the regions of a batch's images; each stage handles one image after the other."""

    def __init__(
        self, network: FasterRCNN, decoded: DecodedImages, detected: DetectedRegions, device: torch.device
    ) -> None:
        self.network, self.decoded, self.detected, self.device = network, decoded, detected, device
        self.pixels, self.maps, self.boxes = list[Tensor](), list[Tensor](), list[Tensor]()
        self.candidates, self.described = list[Candidates](), list[Described]()

    def stages(self, refs: Sequence[ImageRef]) -> list[Stage]:
        """The stages in order; scaling the images counts as preprocessing."""
        return [
            Stage("preprocess", lambda: self._scale(refs)),
            Stage("detect backbone", self._run_backbone),
            Stage("detect proposals", self._propose),
            Stage("detect NMS", self._suppress),
            Stage("detect RoI head", self._describe),
            Stage("detect NMS", lambda: self._choose(refs)),
        ]

    def _scale(self, refs: Sequence[ImageRef]) -> None:
        images = (np.array(self.decoded.open(ref)) for ref in refs)
        self.pixels = [prepared(torch.from_numpy(image).to(self.device), self.network.rules) for image in images]

    def _run_backbone(self) -> None:
        self.maps = [self.network.backbone(pixels[None]) for pixels in self.pixels]

    def _propose(self) -> None:
        pairs = zip(self.maps, self.pixels, strict=True)
        self.candidates = [self.network.propose(maps, (pixels.shape[1], pixels.shape[2]))[0] for maps, pixels in pairs]

    def _suppress(self) -> None:
        self.boxes = [self.network.suppress(candidates) for candidates in self.candidates]

    def _describe(self) -> None:
        pairs = zip(self.maps, self.boxes, strict=True)
        self.described = [self.network.head(self.network.pool(maps[0], boxes)) for maps, boxes in pairs]

    def _choose(self, refs: Sequence[ImageRef]) -> None:
        for ref, pixels, boxes, described in zip(refs, self.pixels, self.boxes, self.described, strict=True):
            rows = self.network.choose(boxes, described)
            kept = Described(described.features[rows], described.classes[rows], described.attributes[rows])
            width, height = self.decoded.open(ref).size
            scale = boxes.new_tensor([width / pixels.shape[2], height / pixels.shape[1]] * 2)
            self.detected.regions[ref.key] = regions_of(Found(boxes[rows], kept), boxes[rows] * scale, width, height)
