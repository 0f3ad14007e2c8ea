"""The residual network: transformers' with the same weights, and images on canvases larger than they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vlbench.models.layers.image_sizes import Extent, inside
from vlbench.models.layers.resnet import Layout, ResNet

LAYOUTS = {
    "basic": Layout((1, 2), 8, bottleneck=False, large_stem=True),
    "bottleneck": Layout((2, 1), 8, bottleneck=True, large_stem=True),
    "small stem": Layout((1, 1, 1), 8, bottleneck=False, large_stem=False),
}


def made(layout: Layout, frozen: int = 0) -> ResNet:
    """With batch statistics that do something, biases among them: what is outside an image must not stay zero."""
    torch.manual_seed(0)
    model = ResNet(layout, frozen)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for parameter in (module.weight, module.bias, module.running_mean):
                assert parameter is not None
                nn.init.normal_(parameter, 0.5)
    return model.eval()


THEIRS = (
    ("embedder.embedder.convolution", "conv1"),
    ("embedder.embedder.normalization", "bn1"),
    ("shortcut.convolution", "downsample.0"),
    ("shortcut.normalization", "downsample.1"),
)


def our_name(name: str) -> str:
    for theirs, ours in THEIRS:
        name = name.replace(theirs, ours)
    parts = name.split(".")
    if parts[0] == "encoder":  # encoder.stages.S.layers.B.layer.L.convolution.weight
        stage, block, rest = int(parts[2]) + 1, parts[4], parts[5:]
        if rest[0] == "layer":
            kind = {"convolution": "conv", "normalization": "bn"}[rest[2]]
            rest = [f"{kind}{int(rest[1]) + 1}", rest[3]]
        name = ".".join([f"layer{stage}", block, *rest])
    return name


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_it_is_transformers_resnet(kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    layout = LAYOUTS[kind]
    ours = made(layout)
    expansion = 4 if layout.bottleneck else 1
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8 * expansion, 16 * expansion],
        depths=list(layout.blocks),
        layer_type=kind,
    )
    theirs = transformers.ResNetModel(config).eval()
    weights = ours.state_dict()
    theirs.load_state_dict({name: weights.pop(our_name(name)) for name in theirs.state_dict()})
    assert not weights
    pixels = torch.randn(2, 3, 48, 64, dtype=torch.float64)  # float32 sums differ by the order of channels and pixels
    with torch.no_grad():
        maps, expected = ours.double()(pixels, None), theirs.double()(pixels).last_hidden_state
    assert maps.shape == (2, layout.channels, 48 // layout.stride, 64 // layout.stride)
    torch.testing.assert_close(maps, expected, atol=1e-12, rtol=1e-12)


def padded(images: list[Tensor], height: int, width: int) -> Tensor:
    canvas = torch.zeros(len(images), 3, height, width)
    for row, image in enumerate(images):
        canvas[row, :, : image.shape[1], : image.shape[2]] = image
    return canvas


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_image_on_a_larger_canvas_is_as_good_as_alone(kind: str) -> None:
    layout = LAYOUTS[kind]
    model, stride = made(layout), layout.stride
    images = [torch.randn(3, stride * height, stride * width) for height, width in ((2, 5), (4, 1), (3, 3))]
    sizes = torch.tensor([image.shape[1:] for image in images])
    with torch.no_grad():
        together = model(padded(images, stride * 4, stride * 6), Extent(sizes, stride * 4))
        careless = model(padded(images, stride * 4, stride * 6), None)
        for row, image in enumerate(images):
            alone = model(image[None], None)[0]
            height, width = alone.shape[1:]
            torch.testing.assert_close(together[row, :, :height, :width], alone, atol=1e-5, rtol=1e-5)
            assert not together[row, :, height:].any() and not together[row, :, :, width:].any()
            assert (careless[row, :, :height, :width] - alone).abs().max() > 1e-2


def test_inside_counts_rows_and_columns_apart() -> None:
    assert inside(torch.tensor([[1, 3], [2, 0]]), 2, 3).int().tolist() == [
        [[1, 1, 1], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 0]],
    ]


def test_what_is_frozen_neither_trains_nor_takes_statistics() -> None:
    model = made(LAYOUTS["basic"], frozen=2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(2, 3, 16, 16), None).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None) == name.startswith("layer2")
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith("layer2") for name in moved)
