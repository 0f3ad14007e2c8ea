"""Faster R-CNN with attributes, in the stages that the profiler measures.

Shapes: N images, H x W pixels, h x w cells of the map, P proposals, R regions, D numbers per region.
Source: Anderson et al. 2018 (arXiv 1707.07998), section 3.1; 14x14 regions and a dilated res5 as in its models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.models.detector.boxes import suppress, suppress_per_class
from vlbench.models.detector.config import Layout, Rules
from vlbench.models.detector.pooling import RegionPooling
from vlbench.models.detector.proposals import Candidates, ProposalNetwork, candidates
from vlbench.models.detector.resnet import Backbone, stage

_AT_ONCE = 50
"""The number of regions in a batch of res5; more take memory and save no time."""


@dataclass(frozen=True)
class Described:
    """The features and labels of P regions.

    features [P, D]. classes [P, classes], attributes [P, attributes]: probabilities without the background.
    """

    features: Tensor
    classes: Tensor
    attributes: Tensor


@dataclass(frozen=True)
class Found:
    """The regions of one image, by descending score.

    boxes [R, 4] in pixels of the network's input. described: their features and labels.
    """

    boxes: Tensor
    described: Described


class RegionHead(nn.Module):
    """res5 over pooled regions, their mean, then the classifiers of class and attribute."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        dim = layout.dim
        self.res5 = stage(layout.map_channels, 8 * layout.width, layout.blocks[3], dilation=2)
        self.classes = nn.Linear(dim, layout.classes + 1)
        self.class_embedding = nn.Embedding(layout.classes + 1, dim // 8)
        self.attribute_hidden = nn.Linear(dim + dim // 8, dim // 4)
        self.attributes = nn.Linear(dim // 4, layout.attributes + 1)

    def forward(self, pooled: Tensor) -> Described:
        """Pooled regions [P, C, 14, 14] -> features and labels; row p depends on row p only."""
        features = torch.cat([self.res5(part).mean((2, 3)) for part in torch.split(pooled, _AT_ONCE)])
        logits = self.classes(features)
        # The attribute is conditioned on the likeliest class, which may be the background, the last row.
        named = torch.cat([features, self.class_embedding(logits.argmax(-1))], -1)
        hidden = functional.relu(self.attribute_hidden(named))
        attributes = self.attributes(hidden)[:, :-1].softmax(-1)
        return Described(features, logits.softmax(-1)[:, :-1], attributes)


class FasterRCNN(nn.Module):
    """The detector, always in eval mode and without gradients.

    Its stages: `backbone`, `propose`, `suppress`, `pool`, `head`, `choose`.
    """

    def __init__(self, layout: Layout, rules: Rules) -> None:
        super().__init__()
        self.layout = layout
        self.rules = rules
        self.backbone = Backbone(layout.width, layout.blocks[:3])
        self.rpn = ProposalNetwork(layout.map_channels, layout.rpn_width)
        self.pool = RegionPooling(rules.pooling)
        self.head = RegionHead(layout)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode whatever `mode`: the detector is never trained here."""
        return super().train(False)

    def propose(self, maps: Tensor, size: tuple[int, int]) -> list[Candidates]:
        """Maps [N, C, h, w] of images of height and width `size` -> each image's best boxes before suppression."""
        logits, boxes = self.rpn(maps)
        most, smallest = self.rules.candidates, self.rules.smallest
        return [candidates(*pair, size, most, smallest) for pair in zip(logits, boxes, strict=True)]

    def suppress(self, candidates: Candidates) -> Tensor:
        """The proposals of one image [P, 4]."""
        kept = suppress(candidates.boxes, candidates.scores, self.rules.proposal_overlap, self.rules.proposals)
        return candidates.boxes[kept]

    def choose(self, boxes: Tensor, described: Described) -> Tensor:
        """Select the proposals that become the image's regions, by descending score: int64 [R].

        A proposal's score is its best one among the classes in which it is not suppressed.
        """
        kept = suppress_per_class(boxes, described.classes, self.rules.class_overlap)
        score = (described.classes * kept).amax(1)
        sure = int((score >= self.rules.confident).sum())
        return score.argsort(descending=True, stable=True)[: min(max(sure, self.rules.least), self.rules.most)]

    def forward(self, images: Sequence[Tensor]) -> list[Found]:
        """Images [3, H, W] of any sizes, scaled and in BGR minus the mean -> their regions.

        Images are processed one by one: in a larger batch the last bit of a score may differ and exchange two regions.
        """
        return [self._detect(image) for image in images]

    def _detect(self, image: Tensor) -> Found:
        maps = self.backbone(image[None])
        height, width = image.shape[1:]
        boxes = self.suppress(self.propose(maps, (height, width))[0])
        described: Described = self.head(self.pool(maps[0], boxes))
        chosen = self.choose(boxes, described)
        parts = (described.features[chosen], described.classes[chosen], described.attributes[chosen])
        return Found(boxes[chosen], Described(*parts))


def random_network(layout: Layout, rules: Rules, seed: int = 0) -> FasterRCNN:
    """Build a network with random weights, reproducible by the seed; torch's random state is unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FasterRCNN(layout, rules)
