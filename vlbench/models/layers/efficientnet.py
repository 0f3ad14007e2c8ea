"""EfficientNet's convolutional network over square pictures.

The module tree carries timm's names (conv_stem, blocks.0.0.conv_dw, conv_head), so that published weights fit as they
are. Convolutions pad as TensorFlow does ("same"), which those weights were trained with.

Shapes: N pictures, C channels, S x S pixels, h x w cells of a map.
Source: Tan and Le 2019 (arXiv 1905.11946).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-3
"""Of the batch norms, TensorFlow's."""
_SQUEEZE = 4
"""A block's input channels to those its channel gates are squeezed through."""


@dataclass(frozen=True)
class Stage:
    """blocks of one kind; the first has the stride. expansion: inner channels to a block's input channels."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


@dataclass(frozen=True)
class Layout:
    """stem: channels of the first convolution, of stride 2. head: channels of the last, 1x1."""

    stem: int
    stages: tuple[Stage, ...]
    head: int

    @property
    def stride(self) -> int:
        """Pixels along the side of one cell of the last map, the stem's stride of 2 among them."""
        return 2 * math.prod(stage.stride for stage in self.stages)


B0 = Layout(
    stem=32,
    stages=(
        Stage(1, 3, 1, 1, 16),
        Stage(2, 3, 2, 6, 24),
        Stage(2, 5, 2, 6, 40),
        Stage(3, 3, 2, 6, 80),
        Stage(3, 5, 1, 6, 112),
        Stage(4, 5, 2, 6, 192),
        Stage(1, 3, 1, 6, 320),
    ),
    head=1280,
)
B5 = Layout(
    stem=48,
    stages=(
        Stage(3, 3, 1, 1, 24),
        Stage(5, 3, 2, 6, 40),
        Stage(5, 5, 2, 6, 64),
        Stage(7, 3, 2, 6, 128),
        Stage(7, 5, 1, 6, 176),
        Stage(9, 5, 2, 6, 304),
        Stage(3, 3, 1, 6, 512),
    ),
    head=2048,
)


class SameConv2d(nn.Conv2d):
    """A convolution without bias whose map has ceil(side / stride) cells; of an odd padding more is below and right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [N, C, h, w] -> [N, outputs, ceil(h / stride), ceil(w / stride)]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in maps.shape[-2:])
        if height == width == kernel - 1:  # even on all sides, so the convolution can do it itself
            return functional.conv2d(maps, self.weight, None, self.stride, kernel // 2, 1, self.groups)
        around = (width // 2, width - width // 2, height // 2, height - height // 2)
        return functional.conv2d(functional.pad(maps, around), self.weight, None, self.stride, 0, 1, self.groups)


class SqueezeExcite(nn.Module):
    """Every channel scaled by a gate that sees the means of all."""

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
    """A convolution channel by channel, gates, a 1x1 convolution; and the input where shapes agree."""

    def __init__(self, inputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        self.conv_dw = SameConv2d(inputs, inputs, stage.kernel, stride, groups=inputs)
        self.bn1 = _norm(inputs)
        self.se = SqueezeExcite(inputs, max(1, inputs // _SQUEEZE))
        self.conv_pw = SameConv2d(inputs, stage.channels, 1)
        self.bn2 = _norm(stage.channels)
        self.residual = stride == 1 and inputs == stage.channels

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [N, C, h, w] -> [N, channels, h / stride, w / stride]."""
        states: Tensor = self.se(functional.silu(self.bn1(self.conv_dw(maps))))
        states = self.bn2(self.conv_pw(states))
        return states + maps if self.residual else states


class InvertedBlock(nn.Module):
    """A separable block over channels that a 1x1 convolution has multiplied."""

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
        """Maps [N, C, h, w] -> [N, channels, h / stride, w / stride]."""
        states: Tensor = functional.silu(self.bn1(self.conv_pw(maps)))
        states = self.se(functional.silu(self.bn2(self.conv_dw(states))))
        states = self.bn3(self.conv_pwl(states))
        return states + maps if self.residual else states


class EfficientNet(nn.Module):
    """Pictures to the last map, without pooling or classifier.

    frozen: how many stages keep their weights and, also while training, their batch statistics; with any of them the
    first and the last convolution do too.
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
        for module in self._kept():
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but what is frozen stays in eval mode."""
        super().train(mode)
        for module in self._kept():
            module.eval()
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, S, S] -> maps [N, head, h, w], every stride rounding up."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)  # faster on CPUs; all maps follow
        maps = functional.silu(self.bn1(self.conv_stem(pixels)))
        for stage in self.blocks:
            maps = stage(maps)
        return functional.silu(self.bn2(self.conv_head(maps)))

    def _kept(self) -> list[nn.Module]:
        """The modules that are frozen."""
        if not self.frozen:
            return []
        return [self.conv_stem, self.bn1, self.conv_head, self.bn2, *self.blocks[: self.frozen]]


def _stage(inputs: int, stage: Stage) -> nn.Sequential:
    kind = SeparableBlock if stage.expansion == 1 else InvertedBlock
    first = kind(inputs, stage, stage.stride)
    return nn.Sequential(first, *(kind(stage.channels, stage, 1) for _ in range(stage.blocks - 1)))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON)
