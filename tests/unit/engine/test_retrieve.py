"""Galleries scored pair by pair, by embeddings, and in two stages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from vlbench import catalog
from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Caption, Example, ImageRef, Query
from vlbench.core.gallery import galleries
from vlbench.core.progress import Silent
from vlbench.core.results import Ranking
from vlbench.data.images import Pictures
from vlbench.data.resources import Resources
from vlbench.data.text import TextEncoder
from vlbench.engine.interrupt import Interrupt
from vlbench.engine.learner import Learner
from vlbench.engine.pace import Pace
from vlbench.engine.retrieve import retrieve
from vlbench.heads.dual import DualHead
from vlbench.heads.rank import RankHead
from vlbench.metrics.ranks import from_matrix
from vlbench.models.fake.backbone import Fake


def split(fold: str = "") -> list[Example[Caption]]:
    return [
        Example(
            f"{fold}{image}{n}",
            Query((ImageRef(Path(f"{fold}{image}"), f"{fold}{image}"),), "word " * (1 + n) + image),
            Caption(f"{fold}{image}", fold),
            f"{fold}{image}",
        )
        for image in "abcdefg"
        for n in range(3)
    ]


EXAMPLES = split()


@pytest.fixture
def learner() -> Learner:
    torch.manual_seed(3)
    text = TextEncoder.train((example.query.text for example in EXAMPLES), 100, 8)
    fake = catalog.load_model(catalog.model_card("fake"), "tiny", Resources(text, Pictures(), None))
    head = RankHead(fake.width, Recipe())
    torch.nn.init.normal_(head.score.weight)
    return Learner(fake, head)


def pace(batch_size: int = 16) -> Pace:
    return Pace(Accelerator(cpu=True), batch_size, 0, Silent(), Interrupt(), "predicting")


def pair_by_pair(learner: Learner, examples: list[Example[Caption]]) -> np.ndarray:
    """Every pair alone, in a batch of one."""
    (gallery,) = galleries(examples)
    backbone, head = learner.parts
    scores = np.empty((len(gallery.images), len(gallery.texts)), np.float32)
    with torch.inference_mode():
        for row, ref in enumerate(gallery.images):
            for column, text in enumerate(gallery.texts):
                seen = backbone.see(backbone.prepare_images([ref]), torch.zeros(1, dtype=torch.int64))
                read = backbone.read(backbone.prepare_texts([text]))
                scores[row, column] = head(backbone.fuse(seen, read)).item()
    return scores


def places(rankings: list[Ranking]) -> list[tuple[str, str, int, int]]:
    return [(item.query_id, item.direction, item.rank_low, item.rank_high) for item in rankings]


@pytest.mark.parametrize("batch_size", [1, 16, 1000])
def test_every_pair_is_scored(learner: Learner, batch_size: int) -> None:
    found, timing = retrieve(learner, EXAMPLES, pace(batch_size))
    expected = from_matrix(pair_by_pair(learner, EXAMPLES), galleries(EXAMPLES)[0])
    assert places(found) == places(expected)
    assert timing.examples == 28
    assert [name for item in found for name, _ in item.top] == [name for item in expected for name, _ in item.top]


def test_folds_are_apart(learner: Learner) -> None:
    both = split("x") + split("y")
    found, timing = retrieve(learner, both, pace())
    assert timing.examples == 56
    assert places(found)[:28] == places(retrieve(learner, split("x"), pace())[0])
    assert all(name.startswith("x") for item in found[:28] for name, _ in item.top)


def test_reranking_all_is_looking_at_all(learner: Learner) -> None:
    whole, _ = retrieve(learner, EXAMPLES, pace())
    reranked, timing = retrieve(learner, EXAMPLES, pace(), rerank_k=21)
    assert places(reranked) == places(whole)
    assert timing.examples == 28


def test_reranking_orders_the_shortlist_and_leaves_the_rest(learner: Learner) -> None:
    backbone, _ = learner.parts
    (gallery,) = galleries(EXAMPLES)
    with torch.inference_mode():
        images = backbone.embed_images(
            backbone.see(backbone.prepare_images(gallery.images), torch.zeros(7, dtype=torch.int64))
        )
        texts = backbone.embed_texts(backbone.read(backbone.prepare_texts(gallery.texts)))
    dual, cross = (images @ texts.T).numpy(), pair_by_pair(learner, EXAMPLES)
    found, _ = retrieve(learner, EXAMPLES, pace(), rerank_k=4)
    for row, item in enumerate(found[:7]):
        by_dual = sorted(range(21), key=lambda column, row=row: -dual[row, column])
        order = sorted(by_dual[:4], key=lambda column, row=row: -cross[row, column]) + by_dual[4:]
        assert [name for name, _ in item.top] == [gallery.text_ids[column] for column in order[:10]]
        assert item.rank_low == min(order.index(column) for column in range(21) if gallery.owner[column] == row)
    for column, item in enumerate(found[7:]):
        by_dual = sorted(range(7), key=lambda row, column=column: -dual[row, column])
        order = sorted(by_dual[:4], key=lambda row, column=column: -cross[row, column]) + by_dual[4:]
        assert item.rank_high == order.index(gallery.owner[column])


def test_a_dual_head_ranks_by_one_product(learner: Learner) -> None:
    dual = Learner(learner.parts[0], DualHead())
    found, timing = retrieve(dual, EXAMPLES, pace())
    assert len(found) == 28 and timing.examples == 28
    short, _ = retrieve(learner, EXAMPLES, pace(), rerank_k=1)
    firsts = [item.top[0][0] for item in found]
    assert firsts == [item.top[0][0] for item in short]  # the one candidate on each shortlist


def test_a_model_without_embeddings_says_so(learner: Learner) -> None:
    class Pairs(Fake):
        embed_images = None  # type: ignore[assignment]

    with pytest.raises(VlbenchError, match=r"Pairs has no embeddings .* leave out --rerank-k"):
        retrieve(Learner(Pairs(), learner.parts[1]), EXAMPLES, pace(), rerank_k=1)
