"""Each objective against a slow computation of its own in float64."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
import torch
from torch import Tensor

from vlbench.models.layers.momentum import Queue
from vlbench.objectives.contrast import region_contrast
from vlbench.objectives.hinge import hinge_loss
from vlbench.objectives.itc import itc_loss, two_queue_loss
from vlbench.objectives.itm import hard_negatives, itm_loss, mismatch
from vlbench.objectives.mlm import IGNORED, mask_tokens, mlm_loss
from vlbench.objectives.mvm import mask_cells, mvm_loss
from vlbench.objectives.region import mask_regions, mrc_kl_loss, mrc_loss, mrfr_loss
from vlbench.objectives.wra import transport, wpa_loss


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def numbers(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def unit(tensor: Tensor) -> Tensor:
    return tensor / tensor.norm(dim=-1, keepdim=True)


def minus_log_share(row: list[float], right: int) -> float:
    return math.log(sum(math.exp(one) for one in row)) - row[right]


def dot(one: Tensor, other: Tensor) -> float:
    return sum(a * b for a, b in zip(one.tolist(), other.tolist(), strict=True))


def cosine(one: Tensor, other: Tensor) -> float:
    return dot(one, other) / math.sqrt(dot(one, one) * dot(other, other))


def test_masking_shares_and_places() -> None:
    ids = torch.arange(10, 40).repeat(400, 1)
    special = torch.zeros_like(ids, dtype=torch.bool)
    special[:, [0, 29]] = True
    seen, labels = mask_tokens(ids, special, Random(0), vocabulary=range(100, 200), mask_id=4)
    chosen = labels != IGNORED
    assert not (chosen & special).any() and torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(seen[~chosen], ids[~chosen])
    total = int(chosen.sum())
    assert total / (400 * 28) == pytest.approx(0.15, abs=0.01)
    kinds = Counter(
        "hidden" if now == 4 else "kept" if now == was else "swapped"
        for now, was in zip(seen[chosen].tolist(), ids[chosen].tolist(), strict=True)
    )
    assert kinds["hidden"] / total == pytest.approx(0.8, abs=0.03)
    assert kinds["swapped"] / total == pytest.approx(0.1, abs=0.02)
    swapped = chosen & (seen != 4) & (seen != ids)
    assert bool(((seen[swapped] >= 100) & (seen[swapped] < 200)).all())


def test_whole_words_are_chosen_together() -> None:
    ids = torch.arange(12).repeat(100, 1)
    words = torch.tensor([0, 1, 1, 1, 2, 3, 3, 4, 5, 5, 5, 6]).repeat(100, 1)
    _, labels = mask_tokens(
        ids, torch.zeros_like(ids, dtype=torch.bool), Random(1), vocabulary=range(9), mask_id=4, whole_words=words
    )
    for row in (labels != IGNORED).tolist():
        for word in range(7):
            assert len({row[place] for place in range(12) if words[0, place] == word}) == 1


def test_mlm_loss(generator: torch.Generator) -> None:
    logits, labels = numbers(generator, 2, 3, 5), torch.tensor([[IGNORED, 2, IGNORED], [4, IGNORED, 0]])
    expected = [
        minus_log_share(logits[text, place].tolist(), int(labels[text, place]))
        for text in range(2)
        for place in range(3)
        if labels[text, place] != IGNORED
    ]
    assert float(mlm_loss(logits, labels)) == pytest.approx(sum(expected) / 3, rel=1e-12)
    assert float(mlm_loss(logits, torch.full_like(labels, IGNORED))) == 0.0


def test_mismatch() -> None:
    rows, matched = mismatch(2000, Random(0))
    assert all((row == place) == same for place, (row, same) in enumerate(zip(rows, matched, strict=True)))
    assert sum(matched) / 2000 == pytest.approx(0.5, abs=0.05)
    assert set(rows) <= set(range(2000)) and mismatch(1, Random(0)) == ([0], [True])


def test_itm_loss(generator: torch.Generator) -> None:
    logits, matched = numbers(generator, 4, 2), torch.tensor([True, False, False, True])
    expected = sum(minus_log_share(row.tolist(), int(same)) for row, same in zip(logits, matched, strict=True)) / 4
    assert float(itm_loss(logits, matched)) == pytest.approx(expected, rel=1e-12)


def test_hard_negatives_are_wrong_and_mostly_similar(generator: torch.Generator) -> None:
    similarity = torch.tensor([[9.0, 5.0, 0.0], [5.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    right = torch.eye(3, dtype=torch.bool)
    drawn = Counter()
    for _ in range(200):
        texts, images = hard_negatives(similarity, right, generator)
        assert not right[torch.arange(3), texts].any() and not right[images, torch.arange(3)].any()
        drawn[int(texts[0]), int(images[0])] += 1
    assert drawn[1, 1] > 180
    with pytest.raises(ValueError, match="no wrong partner"):
        hard_negatives(similarity, torch.ones(3, 3, dtype=torch.bool), generator)


def test_itc_in_the_batch_and_with_queues(generator: torch.Generator) -> None:
    images, texts = unit(numbers(generator, 3, 4)), unit(numbers(generator, 3, 4))
    image_queue, text_queue = unit(numbers(generator, 5, 4)), unit(numbers(generator, 5, 4))

    def one_way(queries: Tensor, candidates: Tensor) -> float:
        rows = [[dot(query, one) / 0.1 for one in candidates] for query in queries]
        return sum(minus_log_share(row, place) for place, row in enumerate(rows)) / 3

    plain = (one_way(images, texts) + one_way(texts, images)) / 2
    assert float(itc_loss(images, texts, 0.1)) == pytest.approx(plain, rel=1e-12)
    queued = (one_way(images, torch.cat([texts, text_queue])) + one_way(texts, torch.cat([images, image_queue]))) / 2
    found = itc_loss(images, texts, 0.1, image_queue=image_queue, text_queue=text_queue)
    assert float(found) == pytest.approx(queued, rel=1e-12)
    hard = torch.eye(3, dtype=torch.float64)
    assert float(itc_loss(images, texts, 0.1, soft=(hard, hard))) == pytest.approx(plain, rel=1e-12)


def test_two_queues(generator: torch.Generator) -> None:
    images, texts, image_keys, text_keys = (unit(numbers(generator, 3, 4)).requires_grad_() for _ in range(4))
    image_queue, text_queue = unit(numbers(generator, 6, 4)), unit(numbers(generator, 6, 4))

    def one_way(queries: Tensor, keys: Tensor, queue: Tensor) -> float:
        rows = [
            [dot(query, key) / 0.07, *(dot(query, one) / 0.07 for one in queue)]
            for query, key in zip(queries, keys, strict=True)
        ]
        return sum(minus_log_share(row, 0) for row in rows) / 3

    expected = one_way(images, text_keys, text_queue) + one_way(texts, image_keys, image_queue)
    found = two_queue_loss(images, texts, image_keys, text_keys, image_queue, text_queue, 0.07)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-12)
    found.backward()
    assert images.grad is not None and image_keys.grad is None and text_keys.grad is None


def test_region_contrast(generator: torch.Generator) -> None:
    queries, keys, queue = (
        numbers(generator, 4, 6).requires_grad_(),
        numbers(generator, 4, 6),
        unit(numbers(generator, 9, 6)),
    )
    total = 0.0
    for query, key in zip(queries.detach(), keys, strict=True):
        scores = [cosine(query, key), *(cosine(query, one) for one in queue)]
        total += minus_log_share([10 * math.tanh(score / 0.07 / 10) for score in scores], 0)
    found = region_contrast(queries, keys, queue)
    assert float(found.detach()) == pytest.approx(total / 4, rel=1e-12)
    found.backward()
    assert queries.grad is not None and float(region_contrast(queries, keys, queue[:0]).detach()) == 0.0


def test_hidden_regions(generator: torch.Generator) -> None:
    features, mask = numbers(generator, 60, 12, 3), torch.ones(60, 12, dtype=torch.bool)
    mask[:, 9:] = False
    features[~mask] = 0.0
    seen, chosen = mask_regions(features, mask, Random(0))
    assert not (chosen & ~mask).any() and torch.equal(seen[~chosen], features[~chosen])
    total = int(chosen.sum())
    assert total / int(mask.sum()) == pytest.approx(0.15, abs=0.04)
    zeros = (seen[chosen] == 0).all(dim=-1).sum()
    assert float(zeros) / total == pytest.approx(0.8, abs=0.1)
    real = {tuple(row) for row in features[mask].tolist()}
    assert all(tuple(row) in real or not any(row) for row in seen[chosen].tolist())


def test_region_losses(generator: torch.Generator) -> None:
    predicted, features = numbers(generator, 2, 3, 4), numbers(generator, 2, 3, 4)
    chosen = torch.tensor([[True, False, True], [False, False, True]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    total = 0.0
    for picture, region in chosen.nonzero().tolist():
        gaps = (predicted[picture, region] - features[picture, region]).abs().tolist()
        total += sum(gap * gap / 2 if gap < 1 else gap - 0.5 for gap in gaps) / 4
    assert float(mrfr_loss(predicted, features, chosen, mask)) == pytest.approx(total / 5 / 0.15, rel=1e-12)

    classes, confidences = torch.tensor([[0, 3, 1], [2, 2, 0]]), numbers(generator, 2, 3).sigmoid()
    total = sum(
        minus_log_share(predicted[picture, region].tolist(), int(classes[picture, region]))
        * float(confidences[picture, region])
        for picture, region in mask.nonzero().tolist()
    )
    assert float(mrc_loss(predicted, classes, confidences, mask)) == pytest.approx(total / 5 / 0.15, rel=1e-12)

    likely = features.softmax(dim=-1)
    total = 0.0
    for picture, region in chosen.nonzero().tolist():
        for place in range(4):
            share = float(likely[picture, region, place])
            total += share * (math.log(share) + minus_log_share(predicted[picture, region].tolist(), place))
    assert float(mrc_kl_loss(predicted, likely, chosen)) == pytest.approx(total / 3, rel=1e-12)
    assert float(mrc_kl_loss(predicted, likely, torch.zeros_like(chosen))) == 0.0


def ipot(cost: list[list[float]], beta: float, iterations: int) -> list[list[float]]:
    """The algorithm as the paper prints it, in lists, without padding."""
    words, regions = len(cost), len(cost[0])
    plan = [[1.0] * regions for _ in range(words)]
    sigma = [1 / regions] * regions
    for _ in range(iterations):
        q = [[math.exp(-cost[i][j] / beta) * plan[i][j] for j in range(regions)] for i in range(words)]
        delta = [1 / (words * sum(q[i][j] * sigma[j] for j in range(regions))) for i in range(words)]
        sigma = [1 / (regions * sum(q[i][j] * delta[i] for i in range(words))) for j in range(regions)]
        plan = [[delta[i] * q[i][j] * sigma[j] for j in range(regions)] for i in range(words)]
    return plan


def test_transport_is_ipot_on_what_is_real(generator: torch.Generator) -> None:
    cost = numbers(generator, 3, 4, 5).abs()
    text_mask = torch.tensor([[True] * 4, [True, True, False, False], [False, True, True, True]])
    visual_mask = torch.tensor([[True] * 5, [True, True, True, False, False], [True, False, True, False, True]])
    plan = transport(cost, text_mask, visual_mask)
    for row in range(3):
        words, regions = text_mask[row].nonzero()[:, 0], visual_mask[row].nonzero()[:, 0]
        expected = ipot(cost[row][words][:, regions].tolist(), 0.5, 50)
        torch.testing.assert_close(plan[row][words][:, regions], torch.tensor(expected), atol=1e-5, rtol=1e-4)
        assert plan[row].sum() == pytest.approx(1.0, abs=1e-5)
        real = text_mask[row][:, None] & visual_mask[row]
        assert not plan[row][~real].any()
        assert plan[row].sum(dim=0)[regions].tolist() == pytest.approx([1 / len(regions)] * len(regions), abs=1e-5)


def test_wpa_pulls_matches_and_pushes_others(generator: torch.Generator) -> None:
    text, visual = numbers(generator, 2, 3, 4).requires_grad_(), numbers(generator, 2, 5, 4)
    text_mask, visual_mask = torch.tensor([[True, True, False], [True] * 3]), torch.ones(2, 5, dtype=torch.bool)
    distances = []
    for row in range(2):
        words = text_mask[row].nonzero()[:, 0].tolist()
        cost = [[1 - cosine(text[row, word].detach(), visual[row, one]) for one in range(5)] for word in words]
        plan = ipot(cost, 0.5, 50)
        distances.append(
            sum(c * p for costs, plans in zip(cost, plan, strict=True) for c, p in zip(costs, plans, strict=True))
        )
    found = wpa_loss(text, visual, text_mask, visual_mask, torch.tensor([True, False]))
    assert float(found.detach()) == pytest.approx((distances[0] - distances[1]) / 2, abs=1e-5)
    found.backward()
    assert text.grad is not None and not text.grad[0, 2].any()


def test_cells_of_one_entry_are_hidden_together() -> None:
    codes = torch.tensor([[1, 2, 1, 3], [5, 5, 5, 5]])
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    for seed in range(20):
        hidden = mask_cells(codes, mask, Random(seed), 1.0)
        assert not (hidden & ~mask).any() and hidden.any(dim=1).all()
        for row in range(2):
            (code,) = set(codes[row][hidden[row]].tolist())
            assert torch.equal(hidden[row], mask[row] & (codes[row] == code))
    assert not mask_cells(codes, mask, Random(0), 0.0).any()
    assert float(mvm_loss(torch.zeros(0, 9), torch.zeros(0, dtype=torch.int64))) == 0.0


def test_hinge_takes_the_hardest(generator: torch.Generator) -> None:
    scores = numbers(generator, 4, 4)
    right = torch.eye(4, dtype=torch.bool)
    right[0, 2] = right[2, 0] = True
    expected = 0.0
    for one in range(4):
        own = float(scores[one, one])
        texts = [float(scores[one, other]) for other in range(4) if not right[one, other]]
        images = [float(scores[other, one]) for other in range(4) if not right[other, one]]
        expected += (max(0.0, 0.2 - own + max(texts)) + max(0.0, 0.2 - own + max(images))) / 4
    assert float(hinge_loss(scores, right)) == pytest.approx(expected, rel=1e-12)
    assert float(hinge_loss(scores, torch.ones(4, 4, dtype=torch.bool))) == 0.0


def test_a_queue_forgets_the_oldest() -> None:
    queue = Queue(5, 2)
    assert queue.filled().shape == (0, 2)
    kept: list[list[float]] = []
    for step in range(6):
        rows = torch.full((1 + step % 3, 2), float(step))
        queue.push(rows)
        kept = [*kept, *rows.tolist()][-5:]
        assert sorted(queue.filled().tolist()) == sorted(kept)
    queue.push(torch.arange(14.0).reshape(7, 2))
    assert sorted(queue.filled().tolist()) == torch.arange(4.0, 14.0).reshape(5, 2).tolist()
    again = Queue(5, 2)
    again.load_state_dict(queue.state_dict())
    assert torch.equal(again.filled(), queue.filled())
