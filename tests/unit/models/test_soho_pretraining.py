"""SOHO's pretraining: what is hidden, what is asked, and its losses computed anew one pair at a time.

test_soho_golden.py compares the losses with numbers of the official code, one caption an image. Here an image has two
captions and is encoded once, and no pair is padded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vlbench.core.cards import ModelCard
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import ImageRef, Query
from vlbench.data.resources import Resources
from vlbench.models.soho.pretraining import SOHOPretraining

Make = Callable[..., SOHOPretraining]
CAPTIONS = ["two red squares", "one blue circle", "a green star above a circle", "the left picture", "a star", "red"]


class Checkered:
    """Images of 3 x 3 flat cells of a few colours, so that cells of one image share entries."""

    def open(self, ref: ImageRef) -> Image.Image:
        rng = np.random.default_rng(int(ref.key))
        colours = rng.integers(0, 256, (2, 3), np.uint8)
        return Image.fromarray(np.kron(colours[rng.integers(0, 2, (3, 3))], np.ones((16, 16, 1), np.uint8)))


@pytest.fixture
def make(card_of: Callable[[str], ModelCard], resources: Resources) -> Make:
    def made(token: str = "plain", **options: str) -> SOHOPretraining:
        card = card_of("soho")
        tiny = card.sizes["tiny"]
        changed = tiny.model_copy(update={"config": {**tiny.config, "token": token, "entries": 12}, "pretraining": {}})
        card = card.model_copy(update={"sizes": {"tiny": changed}})
        torch.manual_seed(0)
        return SOHOPretraining.from_card(card, "tiny", replace(resources, images=Checkered(), regions=None), options)

    return made


@pytest.fixture
def pairs() -> list[Query]:
    """Six captions of three images."""
    return [Query((ImageRef(Path("nowhere"), str(number // 2)),), caption) for number, caption in enumerate(CAPTIONS)]


def test_prepare_is_chance_of_the_given_stream_alone(make: Make, pairs: list[Query]) -> None:
    module = make()
    one, same, other = (module.prepare(pairs, Random(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(one[name].shape != other[name].shape or not torch.equal(one[name], other[name]) for name in one)


def test_a_image_of_several_captions_is_looked_at_once(make: Make, pairs: list[Query]) -> None:
    batch = make().prepare(pairs, Random(0))
    assert len(batch["pixels"]) == 3 and batch["image_rows"].tolist() == [0, 0, 1, 1, 2, 2]


def test_a_caption_of_the_same_image_is_a_match(make: Make, pairs: list[Query]) -> None:
    module = make()
    text = module.backbone.text
    plain = [tuple(row[row != 0].tolist()) for row in module.backbone.prepare_texts(CAPTIONS)["ids"]]
    seen = set()
    for seed in range(20):
        batch = module.prepare(pairs, Random(seed))
        for pair in range(6):
            ids = torch.where(batch["labels"][pair] >= 0, batch["labels"][pair], batch["ids"][pair])
            given = plain.index(tuple(ids[batch["text_mask"][pair]].tolist()))
            assert batch["matched"][pair] == (given // 2 == pair // 2)
            seen.add((given == pair, bool(batch["matched"][pair])))
    assert seen == {(True, True), (False, True), (False, False)}
    assert text.id_of("[PAD]") == 0


def alone(module: SOHOPretraining, batch: dict[str, Tensor], pair: int, hidden: Tensor, tokens: Tensor) -> list[Tensor]:
    """The states of a pair's words and cells, from the transformer over that pair without padding."""
    network, image = module.backbone.network, int(batch["image_rows"][pair])
    shown = tokens[image].clone()
    shown[hidden[image]] = module.mask_embedding.weight[0]
    grid = torch.ones(1, 3, 3, dtype=torch.bool)
    words = batch["ids"][pair][batch["text_mask"][pair]][None]
    text, visual = network.fuse(
        network.embeddings(words),
        torch.ones_like(words, dtype=torch.bool),
        network.neck.place(shown[None], grid),
        grid.flatten(1),
    )
    return [text[0], visual[0]]


def minus_log_share(scores: list[float], right: int) -> float:
    return math.log(sum(math.exp(score) for score in scores)) - scores[right]


@torch.no_grad()
def test_losses_pair_by_pair(make: Make, pairs: list[Query], monkeypatch: pytest.MonkeyPatch) -> None:
    module = make().eval()
    monkeypatch.setattr("vlbench.models.soho.pretraining.SHARES", {"paper": 0.7})
    batch = dict(module.prepare(pairs, Random(5)))
    losses = module.losses(batch)
    network = module.backbone.network
    looked = network.look(batch["pixels"], batch["sizes"])
    assert looked.codes is not None
    hidden = module._hidden(looked.codes, looked.mask.flatten(1), batch["mask_seed"])
    assert 0 < hidden.any(1).sum() < 3
    words, cells, matches = [], [], []
    for pair in range(6):
        text, visual = alone(module, batch, pair, hidden, looked.tokens)
        for place, label in enumerate(batch["labels"][pair].tolist()):
            if label >= 0:
                words.append(
                    minus_log_share(
                        [float(text[place] @ row) for row in network.embeddings.word_embeddings.weight], label
                    )
                )
        for place in hidden[batch["image_rows"][pair]].nonzero().flatten().tolist():
            state = visual[place]
            scores = [float(state @ one / state.norm() / one.norm()) for one in network.neck.dictionary.entries]
            cells.append(minus_log_share(scores, int(looked.codes[batch["image_rows"][pair], place])))
        matches.append(minus_log_share((module.matching.weight @ text[0]).tolist(), int(batch["matched"][pair])))
    assert words and cells
    for name, expected in (("mlm", words), ("mvm", cells), ("itm", matches)):
        assert float(losses[name]) == pytest.approx(sum(expected) / len(expected), abs=1e-4)


@torch.no_grad()
def test_all_cells_of_one_entry_are_hidden_together(make: Make, pairs: list[Query]) -> None:
    module = make()
    codes = torch.tensor([[3, 3, 1, 3], [2, 1, 2, 2]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]) == 1
    found = {tuple(map(tuple, module._hidden(codes, mask, torch.tensor(seed)).int().tolist())) for seed in range(300)}
    rows = [{rows[image] for rows in found} for image in range(2)]
    assert rows[0] == {(0, 0, 0, 0), (1, 1, 0, 0), (0, 0, 1, 0)}
    assert rows[1] == {(0, 0, 0, 0), (1, 0, 1, 1), (0, 1, 0, 0)}


@pytest.mark.parametrize("masks,share", [("paper", 0.15), ("official", 0.015)])
def test_shares_of_images_with_hidden_cells(make: Make, masks: str, share: float) -> None:
    module = make(masks=masks)
    codes = torch.zeros(4000, 1, dtype=torch.int64)
    hidden = module._hidden(codes, torch.ones(4000, 1, dtype=torch.bool), torch.tensor(7))
    assert float(hidden.float().mean()) == pytest.approx(share, rel=0.25)


def test_the_papers_masks_are_the_default_and_a_wrong_name_is_an_error(make: Make) -> None:
    assert make().config.masks == "paper"
    with pytest.raises(VlbenchError, match=r"pretraining of soho-tiny: masks is 'papers'"):
        make(masks="papers")


def test_without_a_dictionary_no_cells_are_hidden(make: Make, pairs: list[Query]) -> None:
    module = make("none")
    assert set(module.losses(module.prepare(pairs, Random(0)))) == {"mlm", "itm"}


def test_a_step_trains_what_it_should_and_moves_the_dictionary(
    make: Make, pairs: list[Query], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make("gated").train()
    monkeypatch.setattr("vlbench.models.soho.pretraining.SHARES", {"paper": 1.0})
    before = module.backbone.network.neck.dictionary.entries.clone()
    losses = module.losses(module.prepare(pairs, Random(3)))
    assert set(losses) == {"mlm", "itm", "mvm"}
    torch.stack(list(losses.values())).sum().backward()
    module.after_step()
    assert {name for name, parameter in module.named_parameters() if parameter.grad is None} == set()
    assert not torch.equal(module.backbone.network.neck.dictionary.entries, before)


def test_an_official_size_looks_up_while_pretraining(make: Make) -> None:
    module = make()
    module.backbone.network.neck.lookup = False
    assert SOHOPretraining(module.backbone, module.config).backbone.network.neck.lookup
