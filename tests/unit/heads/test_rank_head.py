"""The head that ranks: its negatives, and its three losses against plain sums."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from vlbench.core.backbone import Features
from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Caption, Example, ImageRef, Query
from vlbench.heads.rank import RankHead

EXAMPLES = [
    Example(f"{image}{n}", Query((ImageRef(Path(image), image),), f"text {image}{n}"), Caption(image), image)
    for image in "abc"
    for n in range(5)
]
OWNER = {example.query.text: example.reference.image for example in EXAMPLES}


def head(**recipe: Any) -> RankHead:
    return RankHead(4, Recipe.model_validate(recipe))


def test_negatives_are_of_other_images_and_come_after_the_example() -> None:
    rows = [0, 7]
    queries = head(negative_texts=6, negative_images=2).queries(rows, EXAMPLES, Random(0))
    assert len(queries) == 2 * 9
    for number, row in enumerate(rows):
        own, *others = queries[9 * number : 9 * number + 9]
        assert own == EXAMPLES[row].query
        image = EXAMPLES[row].reference.image
        assert all(query.images == own.images and OWNER[query.text] != image for query in others[:6])
        assert all(query.text == own.text and query.images[0].key != image for query in others[6:])


def test_any_text_of_another_image_is_as_likely_a_negative() -> None:
    queries = head(negative_texts=15).queries([0] * 400, EXAMPLES, Random(0))
    counts = Counter(query.text for query in queries if query.text != EXAMPLES[0].query.text)
    expected = 400 * 15 / 10  # of ten texts of other images, with a standard deviation of 23
    assert sorted(counts) == sorted(text for text, image in OWNER.items() if image != "a")
    assert all(abs(count - expected) < 5 * 23.3 for count in counts.values())


def test_negatives_depend_on_the_stream_alone() -> None:
    ranking = head(negative_texts=3)
    assert ranking.queries([0], EXAMPLES, Random(1)) == ranking.queries([0], EXAMPLES, Random(1))
    assert ranking.queries([0], EXAMPLES, Random(1)) != ranking.queries([0], EXAMPLES, Random(2))


def test_one_image_has_no_negatives() -> None:
    with pytest.raises(VlbenchError, match="another image than 'a'"):
        head().queries([0], EXAMPLES[:5], Random(0))
    with pytest.raises(VlbenchError, match="both 0"):
        head(negative_texts=0)


def test_a_pair_gets_one_score() -> None:
    """Of a linear layer with one output, by hand; a second one would be a classifier's."""
    ranking = head()
    assert {name: tuple(value.shape) for name, value in ranking.named_parameters()} == {
        "score.weight": (1, 4),
        "score.bias": (1,),
    }
    with torch.no_grad():
        ranking.score.weight.copy_(torch.tensor([[1.0, -2.0, 0.5, 3.0]]))
        ranking.score.bias.fill_(0.25)
    none, mask = torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool)
    pooled = torch.tensor([[1.0, 1.0, 2.0, 0.0], [0.0, 0.0, 0.0, -1.0]])
    assert ranking(Features(pooled, none, none, mask, mask)).tolist() == [0.25, -2.75]


SCORES = [[1.0, 0.5, -2.0, 2.0], [0.0, 3.0, -1.0, 0.25]]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_softmax_loss() -> None:
    expected = sum(math.log(sum(map(math.exp, row))) - row[0] for row in SCORES) / 2
    assert loss(head(negative_texts=3)) == pytest.approx(expected, rel=1e-6)


def test_hinge_is_the_mean_over_all_negatives() -> None:
    """By hand: the margin minus sigmoid(1) = .73106 plus the sigmoids of .5, -2, 2 is .19140, below 0, .44974; of the
    second example, with sigmoid(0) = .5 and the sigmoids of 3, -1, .25, it is .75257, .06894, .36218."""
    expected = (0.1914008 + 0.0 + 0.4497385 + 0.7525741 + 0.0689414 + 0.3621765) / 6
    ranking = head(rank_loss="hinge", margin=0.3, negative_texts=2, negative_images=1)
    assert loss(ranking) == pytest.approx(expected, abs=1e-6)


def test_binary_loss() -> None:
    expected = sum(-math.log(sigmoid(row[0])) - sum(math.log(1 - sigmoid(x)) for x in row[1:]) for row in SCORES) / 8
    assert loss(head(rank_loss="binary", negative_texts=3)) == pytest.approx(expected, rel=1e-6)


def loss(ranking: RankHead) -> float:
    return float(ranking.loss(torch.tensor(SCORES).flatten(), ranking.targets(EXAMPLES[:2])))
