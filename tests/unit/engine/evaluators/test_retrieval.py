"""Galleries scored pair by pair, by embeddings, and in two stages; by one rank or several, at once or after a kill."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from vlbench import catalog
from vlbench.core.backbone import Features, Tensors, Textual, Visual
from vlbench.core.cards import Recipe
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import Caption, Example, ImageRef, Query
from vlbench.core.gallery import galleries
from vlbench.core.progress import Silent
from vlbench.core.results import Ranking
from vlbench.data.images.load import ImageFiles
from vlbench.data.resources import Resources
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine.batching.block_store import Array, BlockStore, MakeBlocks
from vlbench.engine.evaluators import cross_encoder, retrieval
from vlbench.engine.evaluators.cross_encoder import by_pairs
from vlbench.engine.evaluators.gallery import check_scores
from vlbench.engine.evaluators.retrieval import Search, by_embeddings, retrieve
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.interrupt import Interrupt, Interrupted
from vlbench.engine.runtime.progress_timing import Pace, Timing
from vlbench.engine.runtime.ranks import Ranks
from vlbench.heads.dual import DualHead
from vlbench.heads.rank import RankHead
from vlbench.metrics.ranks import from_matrix
from vlbench.metrics.retrieval import ir_r5, tr_r1
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
    fake = catalog.load_model(catalog.model_card("fake"), "tiny", Resources(text, ImageFiles(), None))
    head = RankHead(fake.width, Recipe())
    torch.nn.init.normal_(head.score.weight)
    return Learner(fake, head)


def pace(batch_size: int = 16) -> Pace:
    return Pace(Accelerator(cpu=True), batch_size, 0, Silent(), Interrupt(), "predicting")


def search(
    learner: Learner,
    examples: list[Example[Caption]],
    pace: Pace,
    rerank_k: int | None = None,
    keep: Path | None = None,
) -> tuple[list[Ranking], Timing]:
    """As the evaluator of the learner's head ranks."""
    return retrieve(learner, examples, pace, ranking_of(learner, rerank_k), rerank_k, keep)


def ranking_of(learner: Learner, rerank_k: int | None) -> Callable[[Search], dict[int, list[Ranking]]]:
    return by_embeddings if isinstance(learner.head, DualHead) else partial(by_pairs, rerank_k=rerank_k)


def pair_by_pair(learner: Learner, examples: list[Example[Caption]]) -> np.ndarray:
    """Every pair alone, in a batch of one."""
    (gallery,) = galleries(examples)
    backbone, head = learner.backbone, learner.head
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
    rankings, timing = search(learner, EXAMPLES, pace(batch_size))
    expected = from_matrix(pair_by_pair(learner, EXAMPLES), galleries(EXAMPLES)[0])
    assert places(rankings) == places(expected)
    assert timing.examples == 28
    assert [name for item in rankings for name, _ in item.top] == [name for item in expected for name, _ in item.top]


def test_folds_are_apart(learner: Learner) -> None:
    both = split("x") + split("y")
    rankings, timing = search(learner, both, pace())
    assert timing.examples == 56
    assert places(rankings)[:28] == places(search(learner, split("x"), pace())[0])
    assert all(name.startswith("x") for item in rankings[:28] for name, _ in item.top)


def test_reranking_all_is_scoring_all_pairs(learner: Learner) -> None:
    whole, _ = search(learner, EXAMPLES, pace())
    reranked, timing = search(learner, EXAMPLES, pace(), rerank_k=21)
    assert places(reranked) == places(whole)
    assert timing.examples == 28


def test_reranking_orders_the_shortlist_and_leaves_the_rest(learner: Learner) -> None:
    backbone = learner.backbone
    (gallery,) = galleries(EXAMPLES)
    with torch.inference_mode():
        images = backbone.embed_images(
            backbone.see(backbone.prepare_images(gallery.images), torch.zeros(7, dtype=torch.int64))
        )
        texts = backbone.embed_texts(backbone.read(backbone.prepare_texts(gallery.texts)))
    dual, cross = (images @ texts.T).numpy(), pair_by_pair(learner, EXAMPLES)
    rankings, _ = search(learner, EXAMPLES, pace(), rerank_k=4)
    for row, item in enumerate(rankings[:7]):
        by_dual = sorted(range(21), key=lambda column, row=row: -dual[row, column])
        order = sorted(by_dual[:4], key=lambda column, row=row: -cross[row, column]) + by_dual[4:]
        assert [name for name, _ in item.top] == [gallery.text_ids[column] for column in order[:11]]
        assert item.rank_low == min(order.index(column) for column in range(21) if gallery.owner[column] == row)
    for column, item in enumerate(rankings[7:]):
        by_dual = sorted(range(7), key=lambda row, column=column: -dual[row, column])
        order = sorted(by_dual[:4], key=lambda row, column=column: -cross[row, column]) + by_dual[4:]
        assert item.rank_high == order.index(gallery.owner[column])


def test_a_dual_head_ranks_by_one_product(learner: Learner) -> None:
    dual = Learner(learner.backbone, DualHead())
    rankings, timing = search(dual, EXAMPLES, pace())
    assert len(rankings) == 28 and timing.examples == 28
    short, _ = search(learner, EXAMPLES, pace(), rerank_k=1)
    firsts = [item.top[0][0] for item in rankings]
    assert firsts == [item.top[0][0] for item in short]  # the one candidate on each shortlist


def test_a_model_without_embeddings_is_rejected(learner: Learner) -> None:
    class Pairs(Fake):
        embed_images = None  # type: ignore[assignment]

    with pytest.raises(VlbenchError, match=r"Pairs does not embed .* leave out --rerank-k"):
        search(Learner(Pairs(), learner.head), EXAMPLES, pace(), rerank_k=1)


class Noise:
    """Images of several sizes."""

    def open(self, ref: ImageRef) -> Image.Image:
        seed = sum(map(ord, ref.key))
        return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30 + seed % 40, 48, 3), np.uint8))


def network() -> Learner:
    """A learner whose scores depend on padding and on the batch, in their last bits."""
    torch.manual_seed(3)
    text = TextEncoder.train((example.query.text for example in EXAMPLES), 100, 8)
    backbone = catalog.load_model(catalog.model_card("vilt"), "tiny", Resources(text, Noise(), None))
    head = RankHead(backbone.width, Recipe())
    torch.nn.init.normal_(head.score.weight)
    return Learner(backbone, head)


@pytest.fixture(params=["cross", "dual", "two stages"])
def way(
    request: pytest.FixtureRequest, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> tuple[Learner, int | None]:
    """A learner and its `rerank_k`; small blocks, so that there are several of each kind."""
    monkeypatch.setattr(cross_encoder, "IMAGES", 2)
    monkeypatch.setattr(retrieval, "PRODUCTS", 42)
    if request.param == "cross":
        return network(), None
    return (Learner(learner.backbone, DualHead()), None) if request.param == "dual" else (learner, 4)


def test_three_ranks_score_to_the_last_bit_as_one_does(
    way: tuple[Learner, int | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ranks' shares are computed one after the other, the last rank's first."""
    model, k = way
    alone, _ = search(model, EXAMPLES, pace(5), k, tmp_path / "alone")

    def in_turn(self: BlockStore, parts: Sequence[Path], sizes: Sequence[int], make: MakeBlocks) -> None:
        for rank in (2, 1, 0):
            numbers = Ranks(rank, 3).mine(range(len(sizes)))
            for number, block in zip(numbers, make(numbers), strict=True):
                np.save(parts[number], block)

    monkeypatch.setattr(BlockStore, "_write_missing", in_turn)
    shared, _ = search(model, EXAMPLES, pace(5), k, tmp_path / "shared")
    assert shared == alone  # ranks, and the scores of the best
    assert bits(tmp_path / "shared") == bits(tmp_path / "alone")
    assert search(model, EXAMPLES, pace(5), k)[0] == alone  # kept in memory


def test_three_ranks_count_every_image_and_text_once(way: tuple[Learner, int | None]) -> None:
    model, k = way
    (gallery,), counted = galleries(EXAMPLES), []
    for rank in range(3):
        place, timing = Placed(**vars(pace(2)), place=Ranks(rank, 3)), Timing()
        searched = Search(model, gallery, Share(place.place, timing), place, timing)
        with torch.inference_mode():
            ranking_of(model, k)(searched)
        counted.append(timing.examples)
    assert sum(counted) == 28 and min(counted) > 0, counted


@dataclass(frozen=True)
class Placed(Pace):
    """The pace of any rank."""

    place: Ranks = field(default_factory=Ranks)

    @property
    def ranks(self) -> Ranks:
        return self.place


class Share(BlockStore):
    """Computes all blocks, and counts only those of this rank."""

    def __init__(self, ranks: Ranks, timing: Timing) -> None:
        super().__init__(ranks)
        self.timing = timing

    def fill(self, name: str, sizes: Sequence[int], make: MakeBlocks) -> Array:
        before = self.timing.examples
        whole = np.concatenate(list(make(range(len(sizes)))))
        self.timing.examples = before
        if numbers := self.ranks.mine(range(len(sizes))):
            list(make(numbers))
        return whole


def bits(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.npy")}


def test_a_stopped_search_resumes_to_the_same_bits(way: tuple[Learner, int | None], tmp_path: Path) -> None:
    model, k = way
    whole, _ = search(model, EXAMPLES, pace(5), k, tmp_path / "whole")
    left = set[str]()
    for checks in (1, 4, 18, 30):
        with contextlib.suppress(Interrupted):
            search(model, EXAMPLES, replace(pace(5), interrupt=StopsAfter(checks)), k, tmp_path / "stopped")
        left |= {path.name for path in (tmp_path / "stopped").rglob("*-0000*.npy")}
    assert left, "it was never stopped between two blocks"
    assert search(model, EXAMPLES, pace(5), k, tmp_path / "stopped")[0] == whole
    assert bits(tmp_path / "stopped") == bits(tmp_path / "whole")


class StopsAfter(Interrupt):
    """Stops at a given number of checks."""

    def __init__(self, checks: int) -> None:
        super().__init__()
        self.checks = checks

    def check(self) -> None:
        self.checks -= 1
        if self.checks < 0:
            raise Interrupted


def test_other_weights_are_scored_anew(learner: Learner, tmp_path: Path) -> None:
    first, _ = search(learner, EXAMPLES, pace(), None, tmp_path)
    torch.nn.init.ones_(learner.get_parameter("head.score.weight"))
    second, _ = search(learner, EXAMPLES, pace(), None, tmp_path)
    assert second != first
    assert second == search(learner, EXAMPLES, pace())[0]


def test_the_curve_holds_the_recalls_of_smaller_shortlists(learner: Learner, tmp_path: Path) -> None:
    both = [*split("x"), *split("y")]
    search(learner, both, pace(), 4, tmp_path)
    curve = json.loads((tmp_path / "by-depth.json").read_text("utf8"))
    assert list(curve) == ["1", "2", "4"]
    for depth, recalls in curve.items():
        rankings, _ = search(learner, both, pace(), int(depth))
        assert recalls["tr_r1"] == pytest.approx(tr_r1(rankings, both).value)
        assert recalls["ir_r5"] == pytest.approx(ir_r5(rankings, both).value)


class Counting(Fake):
    """Records the number of pairs of each forward pass and of images prepared together."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[int] = []
        self.images: list[int] = []

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        self.images.append(len(refs))
        return super().prepare_images(refs)

    def fuse(self, seen: Visual, read: Textual) -> Features:
        self.pairs.append(len(seen.mask))
        return super().fuse(seen, read)


@pytest.mark.parametrize(
    ("batch_size", "images", "pairs", "k", "most_images", "most_pairs"),
    [
        (4, 16, 1 << 16, None, 4, 4),  # the batch size limits both
        (1, 16, 1 << 16, None, 1, 1),
        (5, 2, 1 << 16, None, 2, 5),  # 2 images to a block
        (100, 16, 1 << 16, None, 7, 100),
        (100, 16, 63, None, 3, 63),  # 63 pairs to a block: 3 images with 21 texts
        (100, 16, 20, None, 1, 21),  # a block has an image at least
        (3, 16, 1 << 16, 4, 3, 3),
    ],
)
def test_no_forward_is_larger_than_asked_for(
    batch_size: int,
    images: int,
    pairs: int,
    k: int | None,
    most_images: int,
    most_pairs: int,
    learner: Learner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cross_encoder, "IMAGES", images)
    monkeypatch.setattr(cross_encoder, "PAIRS", pairs)
    counting = Counting()
    rankings, _ = search(Learner(counting, learner.head), EXAMPLES, pace(batch_size), k)
    assert max(counting.pairs) == most_pairs and max(counting.images) == most_images
    assert k is not None or sum(counting.pairs) == 7 * 21
    assert len(rankings) == 28


@pytest.mark.parametrize("training", [True, False])
def test_a_ranking_is_made_in_evaluation_mode_and_leaves_the_mode(training: bool, learner: Learner) -> None:
    expected, modes = search(learner.eval(), EXAMPLES, pace())[0], list[bool]()
    learner.train(training)
    head = learner.head
    cast(torch.nn.Module, head).register_forward_pre_hook(lambda module, _: modes.append(module.training))
    assert search(learner, EXAMPLES, pace())[0] == expected
    assert modes and not any(modes)
    assert all(module.training is training for module in learner.modules())


def test_a_score_that_is_not_a_number_names_its_pair() -> None:
    scores = np.zeros((3, 4), np.float32)
    rows, columns = np.broadcast_arrays(np.arange(10, 13)[:, None], np.arange(4))
    check_scores(scores, rows, columns)
    scores[1, 2:] = np.nan
    for given in ((scores, rows, columns), (scores.reshape(-1), rows.reshape(-1), columns.reshape(-1))):
        with pytest.raises(DataError, match="the score of image 11 with text 2 is not a number"):
            check_scores(*given)
