"""The ResNet of Caffe's detectors: strides in the first 1x1 convolutions, frozen statistics.

The modules have Detectron2's names (stem.conv1, res2.0.conv1.norm), so that converted weights load without renaming.

Shapes: N images or regions, C channels, H x W pixels, h x w cells.
Source: He et al. 2016 (arXiv 1512.03385), in its authors' version for Caffe.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

EXPANSION = 4
_BRANCH_GAIN = 0.2
"""The initial weight of a block's branch: with unfitted statistics the sum of 33 equal ones would explode."""
_STEM_GAIN = 1 / 64
"""The inverse of the typical size of pixels minus their mean."""


class Convolution(nn.Conv2d):
    """A convolution without bias, then batch normalization."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(inputs, outputs, kernel, stride, padding, dilation, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [N, C, h, w] -> [N, outputs, h / stride, w / stride], rounded up, before any activation."""
        normed: Tensor = self.norm(super().forward(maps))
        return normed


class Stem(nn.Module):
    """A 7x7 convolution and max-pooling with rounding up, of stride 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = Convolution(3, width, 7, 2)
        nn.init.constant_(self.conv1.norm.weight, _STEM_GAIN)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, H, W] -> maps [N, C, about H / 4, about W / 4]."""
        return functional.max_pool2d(functional.relu(self.conv1(pixels)), 3, 2, ceil_mode=True)


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution to four times the width, and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.shortcut = Convolution(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()
        self.conv1 = Convolution(inputs, width, 1, stride)
        self.conv2 = Convolution(width, width, 3, dilation=dilation)
        self.conv3 = Convolution(width, outputs, 1)
        nn.init.constant_(self.conv3.norm.weight, _BRANCH_GAIN)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [N, C, h, w] -> [N, 4 * width, h / stride, w / stride], rounded up."""
        states = functional.relu(self.conv1(maps))
        states = functional.relu(self.conv2(states))
        return functional.relu(self.conv3(states) + self.shortcut(maps))


def stage(inputs: int, width: int, blocks: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """A stage of `blocks` blocks; the first one has the stride."""
    outputs = EXPANSION * width
    rest = (Bottleneck(outputs, width, 1, dilation) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(inputs, width, stride, dilation), *rest)


class Backbone(nn.Sequential):
    """The stem, res2, res3 and res4: pixels [N, 3, H, W] -> maps [N, 16 * width, H / 16, W / 16], rounded up."""

    def __init__(self, width: int, blocks: tuple[int, int, int]) -> None:
        super().__init__()
        self.stem = Stem(width)
        self.res2 = stage(width, width, blocks[0])
        self.res3 = stage(EXPANSION * width, 2 * width, blocks[1], stride=2)
        self.res4 = stage(2 * EXPANSION * width, 4 * width, blocks[2], stride=2)
