"""Residual convolutional networks over images of mixed sizes.

The modules have torchvision's names (conv1, bn1, layer1.0.conv1, downsample.0), so that published weights load without
renaming.

Shapes: N images, C channels, H x W pixels of the canvas, h x w cells of a map over it.
Source: He et al. 2016 (arXiv 1512.03385); a bottleneck has its stride in the 3x3 convolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.models.layers.eval_parts import EvalParts
from vlbench.models.layers.image_sizes import Extent


@dataclass(frozen=True)
class Layout:
    """The sizes of a ResNet.

    blocks: number of blocks of each stage. width: channels of the first stage; each later stage doubles the channels
    and halves the map. bottleneck: the kind of block. large_stem: a 7x7 convolution and max-pooling of stride 4; else a
    3x3 convolution of stride 2, for small images.
    """

    blocks: tuple[int, ...]
    width: int
    bottleneck: bool
    large_stem: bool

    @property
    def stride(self) -> int:
        """The side of a cell of the last map in pixels."""
        return (4 if self.large_stem else 2) << (len(self.blocks) - 1)

    @property
    def channels(self) -> int:
        """The channels of the last map."""
        return self.width * (Bottleneck.expansion if self.bottleneck else 1) << (len(self.blocks) - 1)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, maps: Tensor, extent: Extent | None) -> Tensor:
        """Maps [N, C, h, w], zero outside the images -> maps [N, C', h / stride, w / stride], zero there too."""
        states = _cut(functional.relu(self.bn1(self.conv1(maps))), extent)
        states = self.bn2(self.conv2(states))
        return _cut(functional.relu(states + self.downsample(maps)), extent)


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution to four times the width, and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, maps: Tensor, extent: Extent | None) -> Tensor:
        """Maps [N, C, h, w], zero outside the images -> maps [N, C', h / stride, w / stride], zero there too."""
        states = _cut(functional.relu(self.bn1(self.conv1(maps))), extent)
        states = functional.relu(self.bn2(self.conv2(states)))
        states = self.bn3(self.conv3(states))
        return _cut(functional.relu(states + self.downsample(maps)), extent)


class ResNet(EvalParts):
    """A ResNet without pooling and classifier.

    frozen: how many of the stem and the stages after it keep their weights and their batch statistics, also in training
    mode. In eval mode row n of the result depends on image n only, whatever the canvas.
    """

    def __init__(self, layout: Layout, frozen: int = 0) -> None:
        super().__init__()
        self.layout = layout
        kernel = 7 if layout.large_stem else 3
        self.conv1 = nn.Conv2d(3, layout.width, kernel, 2, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(layout.width)
        inputs = layout.width
        for stage, count in enumerate(layout.blocks):
            blocks, inputs = _stage(layout, stage, count, inputs)
            self.add_module(f"layer{stage + 1}", blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.frozen = frozen
        for module in self.eval_parts():
            module.requires_grad_(False)

    def forward(self, pixels: Tensor, extent: Extent | None) -> Tensor:
        """Pixels [N, 3, H, W], zero outside the images -> maps [N, channels, H / stride, W / stride], zero there too.

        extent: the sizes of the images, multiples of the stride; None if every image fills the canvas.
        """
        pixels = pixels.contiguous(memory_format=torch.channels_last)  # a third faster on CPUs; all maps follow
        maps = _cut(functional.relu(self.bn1(self.conv1(pixels))), extent)
        if self.layout.large_stem:
            # Zeros outside an image act like the -inf outside the canvas: no value inside is negative.
            maps = _cut(functional.max_pool2d(maps, 3, 2, 1), extent)
        for stage in self._stages():
            for block in stage.children():
                maps = block(maps, extent)
        return maps

    def eval_parts(self) -> list[nn.Module]:
        """The frozen modules."""
        parts = [[self.conv1, self.bn1], *([stage] for stage in self._stages())]
        return [module for part in parts[: self.frozen] for module in part]

    def _stages(self) -> Iterator[nn.Module]:
        return (self.get_submodule(f"layer{stage + 1}") for stage in range(len(self.layout.blocks)))


def _stage(layout: Layout, stage: int, count: int, inputs: int) -> tuple[nn.ModuleList, int]:
    """The blocks of a stage over maps of `inputs` channels, and the channels of their output."""
    kind = Bottleneck if layout.bottleneck else BasicBlock
    width = layout.width << stage
    blocks = nn.ModuleList()
    for place in range(count):
        blocks.append(kind(inputs, width, 2 if stage and not place else 1))
        inputs = width * kind.expansion
    return blocks, inputs


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The identity, or a 1x1 convolution if the shapes differ."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _cut(maps: Tensor, extent: Extent | None) -> Tensor:
    return maps if extent is None else extent.cut(maps)
