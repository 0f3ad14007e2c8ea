"""What the objectives choose, leave out and are when there is nothing to learn; whole values against small hand sums.

The values of the official code are in `test_official.py` and in the models' golden tests.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
import torch
from torch import Tensor

from vlbench.models.layers.momentum import Queue
from vlbench.objectives.hinge import hinge_loss
from vlbench.objectives.itc import itc_loss, region_contrast, two_queue_loss
from vlbench.objectives.itm import hard_negatives, mismatch
from vlbench.objectives.mlm import IGNORED, mask_tokens, mlm_loss
from vlbench.objectives.region import mask_cells, mask_regions, mrc_loss, mrfr_loss, mvm_loss
from vlbench.objectives.wra import transport, wpa_loss


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def numbers(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def unit(tensor: Tensor) -> Tensor:
    return tensor / tensor.norm(dim=-1, keepdim=True)


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


def test_any_word_of_the_vocabulary_replaces_a_token() -> None:
    """Counted over all of them, so that one word always, or half of the words, does not pass."""
    ids, size = torch.full((500, 100), 7), 40
    seen, labels = mask_tokens(
        ids, torch.zeros_like(ids, dtype=torch.bool), Random(2), vocabulary=range(100, 140), mask_id=4
    )
    swapped = seen[(labels != IGNORED) & (seen != 4) & (seen != 7)]
    counts = torch.bincount(swapped - 100, minlength=size)
    expected = len(swapped) / size
    assert len(counts) == size and expected > 15
    # Pearson's statistic over `size` words: its mean is 39 and its standard deviation 8.8.
    assert float(((counts - expected) ** 2 / expected).sum()) < 39 + 5 * 8.8


def test_whole_words_are_chosen_together() -> None:
    ids = torch.arange(12).repeat(100, 1)
    words = torch.tensor([0, 1, 1, 1, 2, 3, 3, 4, 5, 5, 5, 6]).repeat(100, 1)
    _, labels = mask_tokens(
        ids, torch.zeros_like(ids, dtype=torch.bool), Random(1), vocabulary=range(9), mask_id=4, whole_words=words
    )
    for row in (labels != IGNORED).tolist():
        for word in range(7):
            assert len({row[place] for place in range(12) if words[0, place] == word}) == 1


def test_no_word_was_chosen(generator: torch.Generator) -> None:
    logits = numbers(generator, 2, 3, 5).requires_grad_()
    loss = mlm_loss(logits, torch.full((2, 3), IGNORED))
    loss.backward()
    assert float(loss.detach()) == 0.0 and logits.grad is not None


def test_any_other_row_is_as_likely_a_partner() -> None:
    """Counted over all of them, so that a draw from two rows only, or from one side, does not pass."""
    count, times, rng = 9, 4000, Random(0)
    drawn = torch.zeros(count, count)
    for _ in range(times):
        rows, matched = mismatch(count, rng)
        assert matched == [row == place for place, row in enumerate(rows)]
        drawn[range(count), rows] += 1
    own = drawn.diagonal() / times
    assert own.tolist() == pytest.approx([0.5] * count, abs=0.04)
    others = drawn[~torch.eye(count, dtype=torch.bool)].view(count, count - 1)
    expected = times * 0.5 / (count - 1)  # 250, with a standard deviation of 15
    assert float((others - expected).abs().max()) < 5 * 15.3
    assert mismatch(1, Random(0)) == ([0], [True])
    assert all(mismatch(4, Random(seed), share=0.0) == ([0, 1, 2, 3], [True] * 4) for seed in range(5))
    assert not any(any(mismatch(4, Random(seed), share=1.0)[1]) for seed in range(20))


def test_hard_negatives_are_wrong_and_mostly_similar(generator: torch.Generator) -> None:
    similarity = torch.tensor([[9.0, 5.0, 0.0], [5.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    right = torch.eye(3, dtype=torch.bool)
    drawn = Counter()
    for _ in range(200):
        texts, images = hard_negatives(similarity, right, generator)
        assert not right[torch.arange(3), texts].any() and not right[images, torch.arange(3)].any()
        drawn[int(texts[0]), int(images[0])] += 1
    assert drawn[1, 1] > 180
    with pytest.raises(ValueError, match="no negative in the batch"):
        hard_negatives(similarity, torch.ones(3, 3, dtype=torch.bool), generator)


def test_hard_negatives_are_drawn_by_similarity(generator: torch.Generator) -> None:
    """Odds of a half, a third and a sixth among the wrong ones of the first row and of the first column."""
    similarity = torch.zeros(4, 4)
    similarity[0, 1:] = similarity[1:, 0] = torch.tensor([3.0, 2.0, 1.0]).log()
    drawn = [hard_negatives(similarity, torch.eye(4, dtype=torch.bool), generator) for _ in range(3000)]
    for way in (0, 1):
        counts = Counter(int(rows[way][0]) for rows in drawn)
        assert [counts[row] / 3000 for row in range(4)] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 6], abs=0.04)


def test_contrast_within_the_batch() -> None:
    """Of two orthogonal pairs each own cosine is 1, the other 0: log(1 + exp(-1 / temperature)) each way."""
    images, texts = (torch.eye(2, dtype=torch.float64).requires_grad_() for _ in range(2))
    loss = itc_loss(images, texts, 1.0)
    assert float(loss.detach()) == pytest.approx(0.3132616875182228, rel=1e-12)
    assert float(itc_loss(images, texts, 0.5).detach()) == pytest.approx(0.1269280110429726, rel=1e-12)
    loss.backward()
    assert images.grad is not None and texts.grad is not None


def test_two_queues() -> None:
    """Own cosines of 1 and two keys of earlier steps at 0: log(1 + 2 exp(-1 / temperature)), both ways added up."""
    images, texts, image_keys, text_keys = (torch.eye(4)[:2].double().requires_grad_() for _ in range(4))
    queue = torch.eye(4)[2:].double()
    found = two_queue_loss(images, texts, image_keys, text_keys, queue, queue, 1.0)
    assert float(found.detach()) == pytest.approx(2 * 0.5514447139320509, rel=1e-12)
    found.backward()
    assert images.grad is not None and image_keys.grad is None and text_keys.grad is None


def test_contrast_of_regions_without_a_queue(generator: torch.Generator) -> None:
    queries, keys = numbers(generator, 4, 6).requires_grad_(), numbers(generator, 4, 6).requires_grad_()
    queue = unit(numbers(generator, 9, 6))
    region_contrast(queries, keys, queue).backward()
    assert queries.grad is not None and keys.grad is None
    assert float(region_contrast(queries, keys, queue[:0]).detach()) == 0.0


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


def test_any_real_region_replaces_a_hidden_one() -> None:
    """Counted over all real regions of the batch, of which each holds its own number."""
    mask = torch.ones(100, 10, dtype=torch.bool)
    mask[:, 8:] = False
    features = torch.where(mask, torch.arange(1.0, 1001.0).view(100, 10), 0.0)[..., None]
    places = torch.zeros(1001)
    for seed in range(40):
        seen, chosen = mask_regions(features, mask, Random(seed), share=1.0)
        swapped = seen[chosen & (seen != features)[..., 0] & (seen != 0)[..., 0]]
        places += torch.bincount(swapped.flatten().long(), minlength=1001)
    counts = places[features[mask].flatten().long()]
    expected = float(counts.sum()) / len(counts)
    assert float(counts.sum()) == float(places.sum()) and 3 < expected < 6
    # Counts of one draw each are about Poisson's: their variance is their mean, give or take a seventh.
    assert float(counts.var()) == pytest.approx(expected, rel=5 * (2 / len(counts)) ** 0.5)


def test_padding_does_not_move_the_losses_of_regions(generator: torch.Generator) -> None:
    """Two images of three regions, one of them padding, cost what the regions alone do, whatever the padding holds."""
    predicted, features = numbers(generator, 2, 3, 4), numbers(generator, 2, 3, 4)
    chosen = torch.tensor([[True, False, True], [False, True, False]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    classes, confidences = torch.tensor([[0, 3, 1], [2, 2, 0]]), numbers(generator, 2, 3).sigmoid()

    def flat(rows: Tensor) -> Tensor:
        return rows[mask][None]

    alone = mrfr_loss(flat(predicted), flat(features), flat(chosen), flat(mask))
    assert float(mrfr_loss(predicted, features, chosen, mask)) == pytest.approx(float(alone), rel=1e-12)
    alone = mrc_loss(flat(predicted), flat(classes), flat(confidences), flat(mask))
    assert float(mrc_loss(predicted, classes, confidences, mask)) == pytest.approx(float(alone), rel=1e-12)


def test_transport_leaves_padding_out(generator: torch.Generator) -> None:
    """The plan of what is real is the plan without padding, wherever the padding stands; it carries uniform weight."""
    cost = numbers(generator, 3, 4, 5).abs()
    text_mask = torch.tensor([[True] * 4, [True, True, False, False], [False, True, True, True]])
    visual_mask = torch.tensor([[True] * 5, [True, True, True, False, False], [True, False, True, False, True]])
    plan = transport(cost, text_mask, visual_mask)
    for row in range(3):
        words, regions = text_mask[row].nonzero()[:, 0], visual_mask[row].nonzero()[:, 0]
        inner = cost[row][words][:, regions][None]
        alone = transport(inner, torch.ones(inner.shape[:2]).bool(), torch.ones(1, len(regions)).bool())[0]
        torch.testing.assert_close(plan[row][words][:, regions], alone, atol=1e-6, rtol=1e-5)
        assert plan[row].sum() == pytest.approx(1.0, abs=1e-5)
        assert not plan[row][~(text_mask[row][:, None] & visual_mask[row])].any()
        assert plan[row].sum(dim=0)[regions].tolist() == pytest.approx([1 / len(regions)] * len(regions), abs=1e-5)


def test_transport_carries_words_where_it_costs_nothing() -> None:
    cost = 1 - torch.eye(3)[None]
    plan = transport(cost, torch.ones(1, 3).bool(), torch.ones(1, 3).bool())
    torch.testing.assert_close(plan[0], torch.eye(3) / 3, atol=1e-4, rtol=0)


def test_wpa_pulls_matches_and_pushes_others(generator: torch.Generator) -> None:
    text, visual = numbers(generator, 2, 3, 4).requires_grad_(), numbers(generator, 2, 5, 4)
    text_mask, visual_mask = torch.tensor([[True, True, False], [True] * 3]), torch.ones(2, 5, dtype=torch.bool)

    def loss(*matched: bool) -> Tensor:
        return wpa_loss(text, visual, text_mask, visual_mask, torch.tensor(matched))

    both, first, second = (float(loss(*matched).detach()) for matched in ((True, True), (True, False), (False, True)))
    assert both > 0 and first + second == pytest.approx(0.0, abs=1e-6)
    loss(True, False).backward()
    assert text.grad is not None and text.grad[0, :2].any() and not text.grad[0, 2].any()


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


def test_only_what_does_not_belong_is_a_negative() -> None:
    """Own scores of 1; one other text is right as well, however high it scores."""
    scores = torch.tensor([[1.0, 0.9, 5.0], [0.0, 1.0, 0.95], [0.0, 0.0, 1.0]], dtype=torch.float64)
    right = torch.eye(3, dtype=torch.bool)
    right[0, 2] = True
    # Images: 0.1 (0.9 against 1), 0.15 (0.95), 0; texts: 0, 0.1 (0.9), 0.15 (0.95).
    assert float(hinge_loss(scores, right)) == pytest.approx(0.5, rel=1e-12)
    assert float(hinge_loss(scores, right, negatives="all")) == pytest.approx(0.5, rel=1e-12)
    # A second violation of the first image's, and a smaller one of the third text's.
    scores[0, 2], right[0, 2] = 0.85, False
    assert float(hinge_loss(scores, right)) == pytest.approx(0.5, rel=1e-12)
    assert float(hinge_loss(scores, right, negatives="all")) == pytest.approx(0.6, rel=1e-12)
    assert float(hinge_loss(scores, torch.ones(3, 3, dtype=torch.bool))) == 0.0


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
    for each in (queue, again):
        each.push(torch.ones(1, 2))
    assert torch.equal(again.rows, queue.rows) and int(again.pushed) == int(queue.pushed)


def test_a_push_waits_for_no_device() -> None:
    queue = Queue(5, 2).to("meta")  # where a value that is fetched raises an error
    queue.push(torch.ones(2, 2, device="meta"))
    assert queue.filled().shape == (2, 2)
