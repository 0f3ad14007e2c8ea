"""BriVL's preprocessing of images, boxes and texts, and its towers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vlbench.catalog import shipped_weights
from vlbench.core.backbone import DualEncoder
from vlbench.core.cards import ModelCard
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import ImageRef
from vlbench.data.regions.types import Regions
from vlbench.data.resources import Resources
from vlbench.data.text.tokenizer import SPECIAL, TextEncoder
from vlbench.engine.weights.loading import load_weights
from vlbench.models.brivl.backbone import BriVL
from vlbench.models.brivl.modeling import box_means

BOXES = {"two": [[0, 0, 100, 25], [50, 10, 200, 50]], "none": [], "many": [[0, 0, 20, n] for n in range(1, 51)]}
SIZES = {"two": (200, 50), "none": (1, 1), "many": (20_000, 10)}
TEXTS = ["two red squares", "", "the left picture has one blue circle above a green star"]


class Boxes:
    dim = 5

    def get(self, ref: ImageRef) -> Regions:
        boxes = np.array(BOXES[ref.key], np.float32).reshape(-1, 4)
        n = len(boxes)
        none, zero = np.zeros(n, np.int64), np.zeros(n, np.float32)
        return Regions(200, 50, boxes, np.zeros((n, self.dim), np.float32), none, zero, none, zero)


class Drawn:
    def open(self, ref: ImageRef) -> Image.Image:
        width, height = SIZES[ref.key]
        return Image.fromarray(np.random.default_rng(len(ref.key)).integers(0, 256, (height, width, 3), np.uint8))


def refs(*keys: str) -> list[ImageRef]:
    return [ImageRef(Path(key), key) for key in keys]


@pytest.fixture
def drawn(resources: Resources) -> Resources:
    return replace(resources, images=Drawn(), regions=Boxes())


@pytest.fixture
def brivl(card_of: Callable[[str], ModelCard], drawn: Resources) -> BriVL:
    torch.manual_seed(0)
    model = BriVL.from_card(card_of("brivl"), "tiny", drawn)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return model.eval()


@torch.no_grad()
def embeddings(model: BriVL, keys: list[str], texts: list[str]) -> tuple[Tensor, Tensor]:
    seen = model.see(model.prepare_images(refs(*keys)), torch.zeros(len(keys), dtype=torch.int64))
    return model.embed_images(seen), model.embed_texts(model.read(model.prepare_texts(texts)))


def test_boxes_are_shares_with_the_whole_image_last(brivl: BriVL) -> None:
    images = brivl.prepare_images(refs("two", "none", "many"))
    whole = [0.0, 0.0, 1.0, 1.0]
    assert images["boxes"].shape == (3, 37, 4) and images["mask"].sum(1).tolist() == [3, 1, 37]
    assert images["boxes"][0, :3].tolist() == [[0.0, 0.0, 0.5, 0.5], [0.25, pytest.approx(0.2), 1.0, 1.0], whole]
    assert images["boxes"][1, 0].tolist() == whole and not images["boxes"][1, 1:].any()
    # Of fifty boxes the first 36 count.
    assert images["boxes"][2, 35].tolist() == [0.0, 0.0, pytest.approx(0.1), pytest.approx(36 / 50)]
    assert images["boxes"][2, 36].tolist() == whole


def test_images_are_squeezed_into_squares(brivl: BriVL) -> None:
    images = brivl.prepare_images(refs("none", "two"))
    assert images["pixels"].shape == (2, 3, 48, 48) and images["pixels"].dtype == torch.uint8
    assert images["pixels"][0].flatten(1).unique(dim=1).shape == (3, 1), "one pixel fills its square"
    squeezed = np.asarray(Drawn().open(refs("two")[0]).resize((48, 48), Image.Resampling.BILINEAR))
    assert np.array_equal(images["pixels"][1].permute(1, 2, 0).numpy(), squeezed)


def test_empty_batches_have_shapes(brivl: BriVL) -> None:
    images = brivl.prepare_images([])
    assert images["pixels"].shape == (0, 3, 48, 48) and images["boxes"].shape == (0, 0, 4)
    assert brivl.prepare_texts([])["ids"].shape == (0, 0)


def test_embeddings_are_units_whatever_is_seen_and_read(brivl: BriVL) -> None:
    assert isinstance(brivl, DualEncoder)
    for vectors in embeddings(brivl, ["two", "none", "many"], TEXTS):
        assert vectors.shape == (3, brivl.width)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
        assert vectors.std(dim=0).max() > 1e-2


def test_a_row_is_the_same_alone_and_in_another_order(brivl: BriVL) -> None:
    keys = ["two", "none", "many"]
    together, backwards = embeddings(brivl, keys, TEXTS), embeddings(brivl, keys[::-1], TEXTS[::-1])
    for one, other in zip(together, backwards, strict=True):
        torch.testing.assert_close(one, other.flip(0), atol=1e-6, rtol=0)
    for row in range(3):
        alone = embeddings(brivl, [keys[row]], [TEXTS[row]])
        torch.testing.assert_close(alone[0][0], together[0][row], atol=1e-6, rtol=0)
        torch.testing.assert_close(alone[1][0], together[1][row], atol=1e-6, rtol=0)


def test_boxes_count(brivl: BriVL) -> None:
    images, slot = brivl.prepare_images(refs("two")), torch.zeros(1, dtype=torch.int64)
    moved = images | {"boxes": images["boxes"] * torch.tensor([0.5, 1.0, 0.5, 1.0])}
    with torch.no_grad():
        assert (brivl.see(images, slot).states - brivl.see(moved, slot).states).abs().max() > 1e-3


def test_the_mean_of_what_is_fused_is_the_dot_product(brivl: BriVL) -> None:
    with torch.no_grad():
        seen = brivl.see(brivl.prepare_images(refs("two", "many")), torch.zeros(2, dtype=torch.int64))
        read = brivl.read(brivl.prepare_texts(TEXTS[:2]))
        fused = brivl.fuse(seen, read)
    dots = (brivl.embed_images(seen) * brivl.embed_texts(read)).sum(dim=1)
    torch.testing.assert_close(fused.pooled.mean(dim=1), dots)
    assert fused.pooled.shape == (2, brivl.width) and fused.text.shape == fused.visual.shape == (2, 1, brivl.width)


def interpolated(channel: list[list[float]], x: float, y: float) -> float:
    """The value at a point given in shares of the sides; a cell's is at its middle, outside all is 0."""
    height, width = len(channel), len(channel[0])
    column, row = x * width - 0.5, y * height - 0.5
    total = 0.0
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < height and 0 <= j < width:
                total += (1 - abs(row - i)) * (1 - abs(column - j)) * channel[i][j]
    return total


@pytest.mark.parametrize("grid", [1, 4])
def test_a_region_is_the_mean_of_points_in_its_box(grid: int) -> None:
    torch.manual_seed(0)
    maps, boxes = torch.randn(2, 3, 5, 7), torch.rand(2, 4, 4)
    found = box_means(maps, boxes, grid)
    assert found.shape == (2, 4, 3)
    for n in range(2):
        for r, (x1, y1, x2, y2) in enumerate(boxes[n].tolist()):
            shares = [(k + 0.5) / grid for k in range(grid)]
            points = [(x1 + a * (x2 - x1), y1 + b * (y2 - y1)) for a in shares for b in shares]
            for c in range(3):
                mean = sum(interpolated(maps[n, c].tolist(), *point) for point in points) / grid**2
                assert float(found[n, r, c]) == pytest.approx(mean, abs=1e-5)


def test_official_sampling_on_a_ramp_of_columns() -> None:
    """A map of 12 x 12 cells whose value is the column: the official code gives 3.82 for this box, whose middle is
    column 0.9 * 12 - 0.5 = 10.3; geometric sampling gives 9.21 there, where the points beyond the last cell's middle
    are interpolated with the zeros outside."""
    ramp = torch.arange(12.0).expand(1, 1, 12, 12).contiguous()
    box = torch.tensor([[[0.8, 0.8, 1.0, 1.0]]])
    assert float(box_means(ramp, box, 4, "official")) == pytest.approx(3.82, abs=0.005)
    assert float(box_means(ramp, box, 4, "geometric")) == pytest.approx(9.21, abs=0.005)


def test_official_sampling_shifts_every_point_by_its_axis() -> None:
    """Maps that are not square: a point at the share x lies where geometric sampling has x * w / (w - 1)."""
    torch.manual_seed(0)
    maps = torch.randn(1, 2, 5, 7)
    boxes = torch.rand(1, 3, 4)
    shifted = boxes * torch.tensor([7 / 6, 5 / 4, 7 / 6, 5 / 4])
    torch.testing.assert_close(box_means(maps, boxes, 4, "official"), box_means(maps, shifted, 4, "geometric"))


def test_which_sizes_sample_as_the_released_network(card_of: Callable[[str], ModelCard]) -> None:
    sampling = {name: size.config["sampling"] for name, size in card_of("brivl").sizes.items()}
    official, geometric = "official", "geometric"
    assert sampling == {"tiny": geometric, "small": geometric, "base": official, "chinese": official}


def test_shipped_weights_embed_as_they_always_did(card_of: Callable[[str], ModelCard], tiny_world: Path) -> None:
    """The first numbers of what they embedded before sampling was an option."""
    text = TextEncoder.from_path(tiny_world / "vocab.txt", 32)
    model = BriVL.from_card(card_of("brivl"), "tiny", Resources(text, Drawn(), Boxes()))
    weights = shipped_weights("brivl", "tiny")
    assert weights is not None
    load_weights(nn.ModuleDict({"backbone": model}), weights)
    pixels = (torch.arange(2 * 3 * 48 * 48) * 7919 % 256).to(torch.uint8).view(2, 3, 48, 48)
    boxes = [[[0.1, 0.2, 0.6, 0.9], [0.5, 0.0, 1.0, 0.4], [0, 0, 1, 1]], [[0, 0, 0.3, 0.3], [0, 0, 1, 1], [0] * 4]]
    mask = torch.tensor([[True, True, True], [True, True, False]])
    words = model.eval().prepare_texts(["two red squares", "a star above a blue circle"])
    with torch.no_grad():
        images = model.network.image(pixels, torch.tensor(boxes), mask)[:, :4]
        texts = model.read(words).states[:, 0, :4]
    before = torch.tensor([[-0.026990, 0.064075, 0.058141, -0.007982], [-0.044848, 0.080988, 0.050830, -0.015148]])
    torch.testing.assert_close(images, before, atol=2e-6, rtol=0)
    before = torch.tensor([[0.141920, -0.063913, 0.016076, -0.102959], [-0.038381, -0.023256, 0.025963, -0.059430]])
    torch.testing.assert_close(texts, before, atol=2e-6, rtol=0)


def test_chinese_words_are_read_sign_by_sign(card_of: Callable[[str], ModelCard], drawn: Resources) -> None:
    text = TextEncoder.train(["两个红色方块在一个蓝色圆圈上面"], 100, 20)
    model = BriVL.from_card(card_of("brivl"), "tiny", replace(drawn, words=text)).eval()
    read = model.prepare_texts(["红色圆圈", "一个方块"])
    assert read["mask"].sum(1).tolist() == [6, 6] and read["ids"][:, 1:5].min() >= len(SPECIAL)
    one, other = model.embed_texts(model.read(read))
    assert (one - other).abs().max() > 1e-3


def test_base_has_the_parameters_of_its_parts(card_of: Callable[[str], ModelCard]) -> None:
    def attended(width: int) -> int:
        layer = nn.TransformerEncoderLayer(width, 4, 2048)
        return 4 * sum(parameter.numel() for parameter in layer.parameters())

    def head(width: int) -> int:
        return attended(width) + (width + 1) * 2048 + (2048 + 1) * 2048

    efficientnet, bert_layers = 30_389_784 - 2_049_000, 12 * 7_087_872
    with torch.device("meta"):
        embedded = (30_522 + 512 + 2) * 768 + 2 * 768
        expected = efficientnet + 2048 * 2049 + head(2048) + embedded + bert_layers + head(768)
    assert card_of("brivl").sizes["base"].parameters == expected


def test_what_the_released_network_trains(card_of: Callable[[str], ModelCard], drawn: Resources) -> None:
    with torch.device("meta"):
        model = BriVL.from_card(card_of("brivl"), "chinese", replace(drawn, words=TextEncoder.train(["红"], 100, 80)))
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    cnn, text = "network.image.cnn.", "network.text."
    kept = [f"{cnn}{part}." for part in ("conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2", "conv_head", "bn2")]
    kept += [f"{text}embeddings.", *(f"{text}layers.{place}." for place in range(8))]
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith(tuple(kept))}
    assert {name.split(".")[4] for name in frozen if name.startswith(f"{cnn}blocks.")} == {"0", "1", "2"}


def test_without_boxes_it_is_an_error(brivl: BriVL, drawn: Resources) -> None:
    with pytest.raises(VlbenchError, match="BriVL needs regions and was given none"):
        BriVL(brivl.config, replace(drawn, regions=None))


def test_too_long_texts_are_an_error(brivl: BriVL, drawn: Resources) -> None:
    with pytest.raises(VlbenchError, match="20 tokens do not fit BriVL's 19 positions"):
        BriVL(brivl.config.model_copy(update={"positions": 19}), drawn)


@pytest.mark.parametrize(
    "wrong,message",
    [
        ({"cnn": "b7"}, "cnn is 'b7'"),
        ({"width": 66, "heads": 6}, "width 66 must be a multiple of head_heads 4"),
        ({"heads": 5}, "width 64 must be a multiple of heads 5"),
        ({"head_heads": 3}, "must be a multiple of head_heads 3"),
        ({"sampling": "exact"}, "sampling is 'exact'"),
        ({"sampling": "official", "side": 8}, "side 8 must be above 8 for sampling 'official'"),
    ],
)
def test_faulty_numbers_name_the_size(
    card_of: Callable[[str], ModelCard], drawn: Resources, wrong: dict[str, int | str], message: str
) -> None:
    card = card_of("brivl")
    tiny = card.sizes["tiny"]
    broken = card.model_copy(update={"sizes": {"tiny": tiny.model_copy(update={"config": tiny.config | wrong})}})
    with pytest.raises(VlbenchError, match=f"size 'tiny' of model 'brivl': .*{message}"):
        BriVL.from_card(broken, "tiny", drawn)
