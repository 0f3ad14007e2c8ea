"""What models say they attend to: against the softmax written out over the states that the answer itself is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Attentive, Backbone, Features, Textual, Visual
from vlbench.core.examples import ImageRef
from vlbench.data.images.load import ImageFiles
from vlbench.data.resources import Resources
from vlbench.models.brivl.backbone import BriVL
from vlbench.models.hf.fusion import HFFusion
from vlbench.models.layers.attention import Attention, joined
from vlbench.models.layers.bert import initialize
from vlbench.models.lxmert.backbone import LXMERT
from vlbench.models.soho.backbone import SOHO
from vlbench.models.vilt.backbone import ViLT

TEXTS = ["two red squares", "a star", "the left picture has one blue circle above a green star"]
SIZES = {"wide": (96, 48), "small": (10, 10), "tall": (20, 100)}


@dataclass(frozen=True)
class Subject:
    """A model with three images. last: the attention of the last layer. first: the place of the image's tokens
    among all that are attended to. silent: how many of them stand for no part of the image."""

    model: Any
    refs: Sequence[ImageRef]
    last: Attention
    first: Callable[[Textual], int]
    silent: int

    def sides(self) -> tuple[Visual, Textual]:
        backbone: Backbone = self.model
        slots = torch.zeros(len(self.refs), dtype=torch.int64)
        return backbone.see(backbone.prepare_images(self.refs), slots), backbone.read(backbone.prepare_texts(TEXTS))


@pytest.fixture
def images(tmp_path: Path) -> list[ImageRef]:
    found = []
    for name, (width, height) in SIZES.items():
        draw = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(draw).save(tmp_path / f"{name}.png")
        found.append(ImageRef(tmp_path / f"{name}.png", name))
    return found


@pytest.fixture(params=["lxmert", "vilt", "soho"])
def subject(request: Any, resources: Resources, card_of: Any, config: Any, ref: Any, images: Any) -> Subject:
    torch.manual_seed(0)
    if request.param == "lxmert":
        regions = LXMERT(config, resources).eval()
        initialize(regions, std=0.5)
        last = regions.network.encoder.x_layers[-1].visual_attention.attention
        return Subject(regions, [ref("few-a"), ref("many-b"), ref("some-c")], last, lambda read: 0, 0)
    seeing = Resources(resources.text, ImageFiles(), None)
    model: nn.Module
    if request.param == "vilt":
        model = ViLT.from_card(card_of("vilt"), "tiny", seeing).eval()
        layers, silent = model.network.blocks, 1
    else:
        model = SOHO.from_card(card_of("soho"), "tiny", seeing).eval()
        layers, silent = model.network.layers, 0
    initialize(layers, std=0.2)
    last = next(one for one in layers[-1].modules() if isinstance(one, Attention))
    return Subject(model, images, last, lambda read: read.states.shape[1], silent)


def written_out(subject: Subject, seen: Visual, read: Textual) -> Tensor:
    """The weights of the last layer within `fuse`, pair by pair and head by head, over real tokens only."""
    caught: list[tuple[Tensor, Tensor]] = []
    attention = subject.last
    # Text attends to regions first, then regions to text: of two calls the first one counts.
    plain = attention.attend

    def catch(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        caught.append((query, key))
        return plain(query, key, value, mask)

    attention.attend = catch  # type: ignore[method-assign]
    subject.model.fuse(seen, read)
    del attention.attend
    query, key = caught[0]
    first = subject.first(read)
    rows = []
    for pair in range(len(seen.mask)):
        real = seen.mask[pair].clone()
        heads = []
        for head in range(query.shape[1]):
            allowed = torch.cat([read.mask[pair], real]) if first else real
            dots = torch.stack([query[pair, head, 0].double() @ one.double() for one in key[pair, head]])
            powers = torch.where(allowed, (dots / query.shape[-1] ** 0.5).exp(), 0.0)
            heads.append(powers / powers.sum())
        mean = torch.stack(heads).mean(dim=0)[first:]
        mean[: subject.silent] = 0
        rows.append(mean / mean.sum())
    return torch.stack(rows)


@torch.no_grad()
def test_weights_are_the_softmax_of_the_last_layer(subject: Subject) -> None:
    seen, read = subject.sides()
    found = subject.model.attend(seen, read)
    assert isinstance(subject.model, Attentive)
    assert found.shape == seen.mask.shape
    assert torch.allclose(found.double(), written_out(subject, seen, read), atol=1e-6)
    assert float(found.std()) > 0.01, "large weights distinguish tokens, else any rule would pass"


@torch.no_grad()
def test_weights_sum_to_one_over_what_is_seen(subject: Subject) -> None:
    seen, read = subject.sides()
    found = subject.model.attend(seen, read)
    assert not seen.mask.all(), "some tokens are padding"
    assert torch.allclose(found.sum(dim=1), torch.ones(len(found)), atol=1e-6)
    assert (found >= 0).all()
    assert not found[~seen.mask].any()
    assert not found[:, : subject.silent].any()
    assert found[:, subject.silent :][seen.mask[:, subject.silent :]].all()


@torch.no_grad()
def test_weights_do_not_hang_on_neighbours(subject: Subject) -> None:
    seen, read = subject.sides()
    found = subject.model.attend(seen, read)
    for row, (ref, text) in enumerate(zip(subject.refs, TEXTS, strict=True)):
        images = subject.model.prepare_images([ref])
        alone = subject.model.attend(
            subject.model.see(images, torch.zeros(1, dtype=torch.int64)),
            subject.model.read(subject.model.prepare_texts([text])),
        )
        kept = found[row][found[row] > 0]
        assert torch.allclose(alone[alone > 0], kept, atol=1e-5)


@torch.no_grad()
def test_answers_are_the_same_bit_by_bit(subject: Subject) -> None:
    def fused() -> Features:
        return subject.model.fuse(*subject.sides())

    rng_state, before = torch.get_rng_state(), fused()
    state = {name: value.clone() for name, value in subject.model.state_dict().items()}
    subject.model.attend(*subject.sides())
    after = fused()
    assert torch.equal(before.pooled, after.pooled)
    assert torch.equal(before.text, after.text) and torch.equal(before.visual, after.visual)
    assert torch.equal(rng_state, torch.get_rng_state())
    assert all(torch.equal(value, state[name]) for name, value in subject.model.state_dict().items())


@torch.no_grad()
def test_every_token_that_can_be_attended_to_has_a_place(subject: Subject) -> None:
    images = subject.model.prepare_images(subject.refs)
    seen, read = subject.sides()
    boxes = subject.model.places(images)
    placed = boxes.any(dim=-1)
    assert boxes.shape == (*seen.mask.shape, 4)
    assert torch.equal(placed, subject.model.attend(seen, read) > 0)
    assert boxes.min() >= 0 and boxes.max() <= 1
    if not isinstance(subject.model, LXMERT):
        assert (boxes[placed][:, :2] < boxes[placed][:, 2:]).all()


@pytest.mark.parametrize("name", ["vilt", "soho"])
@pytest.mark.parametrize(("size", "spot"), [((96, 48), (80, 8)), ((48, 96), (8, 80)), ((64, 64), (40, 56))])
@torch.no_grad()
def test_a_marked_spot_lies_in_the_box_of_the_token_that_feels_it(
    name: str, size: tuple[int, int], spot: tuple[int, int], card_of: Any, resources: Any, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    kind = {"vilt": ViLT, "soho": SOHO}[name]
    model: Any = kind.from_card(card_of(name), "tiny", Resources(resources.text, ImageFiles(), None)).eval()
    x, y = spot
    refs = []
    for key in ("plain", "marked"):
        image = Image.new("RGB", size, (120, 120, 120))
        if key == "marked":
            image.paste((255, 0, 0), (x - 2, y - 2, x + 3, y + 3))
        image.save(tmp_path / f"{key}.png")
        refs.append(ImageRef(tmp_path / f"{key}.png", key))
    images = model.prepare_images(refs)
    felt = _felt(model, images)
    left, top, right, bottom = model.places(images)[1, int(felt.argmax())].tolist()
    assert left <= x / size[0] < right
    assert top <= y / size[1] < bottom


def _felt(model: Any, images: dict[str, Tensor]) -> Tensor:
    """How much each token changes from the first image to the second, [R]."""
    if isinstance(model, SOHO):
        model.network.neck.lookup = False
        cells = model.network.look(images["pixels"], images["sizes"]).tokens
        return (cells[1] - cells[0]).norm(dim=1)
    states = model.see(images, torch.zeros(2, dtype=torch.int64)).states
    return (states[1] - states[0]).norm(dim=1)


def test_regions_lie_where_their_boxes_are(cvlp: Any, resources: Resources, ref: Any) -> None:
    boxes = cvlp.places(cvlp.prepare_images([ref("few-a"), ref("many-b")]))
    assert resources.regions is not None
    regions = resources.regions.get(ref("few-a"))
    expected = [[x1 / 200, y1 / 50, x2 / 200, y2 / 50] for x1, y1, x2, y2 in regions.boxes.tolist()]
    np.testing.assert_allclose(boxes[0, :2], expected, rtol=1e-6)
    assert not boxes[0, 2:].any()


@pytest.mark.parametrize("kind", [BriVL, HFFusion])
def test_two_towers_and_models_of_transformers_do_not_tell(kind: type[object]) -> None:
    assert not issubclass(kind, Attentive)


def test_an_image_or_text_without_padding_is_attended_to_without_a_mask(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Tensor | None] = []
    original = functional.scaled_dot_product_attention

    def product(*tensors: Tensor, attn_mask: Tensor | None, dropout_p: float) -> Tensor:
        given.append(attn_mask)
        return original(*tensors, attn_mask=attn_mask, dropout_p=dropout_p)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", product)
    backbone: Backbone = subject.model
    images, texts = backbone.prepare_images(subject.refs[:1]), backbone.prepare_texts(TEXTS[:1])

    def pooled() -> Tensor:
        return backbone.fuse(backbone.see(images, torch.zeros(1, dtype=torch.int64)), backbone.read(texts)).pooled

    if "mask" not in images:  # SOHO's mask follows from sizes, on the device
        pytest.skip("the mask of images is made on the device")
    without, masks = pooled(), given.copy()
    del images["keys"], texts["keys"]
    given.clear()
    assert masks and not [mask for mask in masks if mask is not None]
    assert torch.equal(pooled(), without) and not [mask for mask in given if mask is None]


def test_a_sequence_with_one_padded_part_has_a_mask() -> None:
    text, visual = torch.zeros(2, 3, 4), torch.zeros(2, 1, 4)
    padded = torch.tensor([[True, True, False], [True, True, True]])
    _, mask = joined(text, padded, visual, visual[:, :0, 0].bool())
    assert mask[:, 0, 0].tolist() == [[True, True, False, True], [True] * 4]
