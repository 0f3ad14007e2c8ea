"""EfficientNet's convolutional network over square images.

The modules have timm's names (conv_stem, blocks.0.0.conv_dw, conv_head), so that published weights load without
renaming. Convolutions pad as in TensorFlow ("same"), which those weights were trained with.

Shapes: N images, C channels, S x S pixels, h x w cells of a map.
Source: Tan and Le 2019 (arXiv 1905.11946).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.models.layers.eval_parts import EvalParts

EPSILON = 1e-3
"""The epsilon of the batch norms, as in TensorFlow."""
_SQUEEZE = 4
"""A block's input channels divided by the channels inside its squeeze-and-excitation."""


@dataclass(frozen=True)
class Stage:
    """Some `blocks` of one kind; the first one has the stride. expansion: inner channels divided by input channels."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


@dataclass(frozen=True)
class Layout:
    """The sizes of an EfficientNet.

    stem: channels of the first convolution, of stride 2. head: channels of the last convolution, 1x1.
    """

    stem: int
    stages: tuple[Stage, ...]
    head: int

    @property
    def stride(self) -> int:
        """The side of a cell of the last map in pixels."""
        return 2 * math.prod(stage.stride for stage in self.stages)


def _published(stem: int, blocks: Sequence[int], channels: Sequence[int], head: int) -> Layout:
    """One of B0 to B7, which differ in the numbers of blocks and channels only."""
    kernels, strides, expansions = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1), (1, 6, 6, 6, 6, 6, 6)
    return Layout(stem, tuple(map(Stage, blocks, kernels, strides, expansions, channels)), head)


B0 = _published(32, (1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320), 1280)
B5 = _published(48, (3, 5, 5, 7, 7, 9, 3), (24, 40, 64, 128, 176, 304, 512), 2048)


class SameConv2d(nn.Conv2d):
    """A convolution without bias and with TensorFlow's "same" padding: an odd padding has more below and right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [N, C, h, w] -> [N, outputs, ceil(h / stride), ceil(w / stride)]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in maps.shape[-2:])
        if height == width == kernel - 1:  # the same on all sides, so the convolution can pad itself
            return functional.conv2d(maps, self.weight, None, self.stride, kernel // 2, 1, self.groups)
        around = (width // 2, width - width // 2, height // 2, height - height // 2)
        return functional.conv2d(functional.pad(maps, around), self.weight, None, self.stride, 0, 1, self.groups)


class SqueezeExcite(nn.Module):
    """Squeeze and excitation: each channel is scaled by a gate computed from the means of all channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, squeezed, 1)
        self.conv_expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [N, C, h, w] -> the same shape."""
        gates = self.conv_expand(functional.silu(self.conv_reduce(maps.mean((2, 3), keepdim=True))))
        scaled: Tensor = maps * gates.sigmoid()
        return scaled


class SeparableBlock(nn.Module):
    """A depthwise convolution, squeeze and excitation, a 1x1 convolution; a residual if the shapes agree."""

    def __init__(self, inputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        self.conv_dw = SameConv2d(inputs, inputs, stage.kernel, stride, groups=inputs)
        self.bn1 = _norm(inputs)
        self.se = SqueezeExcite(inputs, max(1, inputs // _SQUEEZE))
        self.conv_pw = SameConv2d(inputs, stage.channels, 1)
        self.bn2 = _norm(stage.channels)
        self.residual = stride == 1 and inputs == stage.channels

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [N, C, h, w] -> [N, channels, ceil(h / stride), ceil(w / stride)]."""
        states: Tensor = self.se(functional.silu(self.bn1(self.conv_dw(maps))))
        states = self.bn2(self.conv_pw(states))
        return states + maps if self.residual else states


class InvertedBlock(nn.Module):
    """A 1x1 convolution that multiplies the channels, then a separable block."""

    def __init__(self, inputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inner = inputs * stage.expansion
        self.conv_pw = SameConv2d(inputs, inner, 1)
        self.bn1 = _norm(inner)
        self.conv_dw = SameConv2d(inner, inner, stage.kernel, stride, groups=inner)
        self.bn2 = _norm(inner)
        self.se = SqueezeExcite(inner, max(1, inputs // _SQUEEZE))
        self.conv_pwl = SameConv2d(inner, stage.channels, 1)
        self.bn3 = _norm(stage.channels)
        self.residual = stride == 1 and inputs == stage.channels

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [N, C, h, w] -> [N, channels, ceil(h / stride), ceil(w / stride)]."""
        states: Tensor = functional.silu(self.bn1(self.conv_pw(maps)))
        states = self.se(functional.silu(self.bn2(self.conv_dw(states))))
        states = self.bn3(self.conv_pwl(states))
        return states + maps if self.residual else states


class EfficientNet(EvalParts):
    """An EfficientNet without pooling and classifier.

    frozen: how many stages keep their weights and their batch statistics, also in training mode; if it is above 0, so
    do the first and the last convolution.
    """

    def __init__(self, layout: Layout, frozen: int = 0) -> None:
        super().__init__()
        self.conv_stem = SameConv2d(3, layout.stem, 3, 2)
        self.bn1 = _norm(layout.stem)
        self.blocks = nn.ModuleList()
        inputs = layout.stem
        for stage in layout.stages:
            self.blocks.append(_stage(inputs, stage))
            inputs = stage.channels
        self.conv_head = SameConv2d(inputs, layout.head, 1)
        self.bn2 = _norm(layout.head)
        for module in self.modules():
            if isinstance(module, SameConv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.frozen = frozen
        for module in self.eval_parts():
            module.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, S, S] -> maps [N, head, h, w]; each stride rounds up."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)  # faster on CPUs; all maps follow
        maps = functional.silu(self.bn1(self.conv_stem(pixels)))
        for stage in self.blocks:
            maps = stage(maps)
        return functional.silu(self.bn2(self.conv_head(maps)))

    def eval_parts(self) -> list[nn.Module]:
        """The frozen modules."""
        if not self.frozen:
            return []
        return [self.conv_stem, self.bn1, self.conv_head, self.bn2, *self.blocks[: self.frozen]]


def _stage(inputs: int, stage: Stage) -> nn.Sequential:
    kind = SeparableBlock if stage.expansion == 1 else InvertedBlock
    first = kind(inputs, stage, stage.stride)
    return nn.Sequential(first, *(kind(stage.channels, stage, 1) for _ in range(stage.blocks - 1)))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON)
