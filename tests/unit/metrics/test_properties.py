"""What holds for any predictions: names and order do not count, nor how the work is cut."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vlbench._tasks.vqa2.normalise import ARTICLES, CONTRACTIONS, MAX_PERIODS, NUMBERS, PUNCTUATION, normalise
from vlbench.core.examples import Caption, Example, ImageRef, Label, Query
from vlbench.core.gallery import galleries
from vlbench.core.results import Prediction
from vlbench.metrics import ranks as ranks_module
from vlbench.metrics import retrieval
from vlbench.metrics.accuracy import accuracy, consistency
from vlbench.metrics.ranks import from_matrix

quick = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
RETRIEVAL = [
    *(retrieval.tr_r1, retrieval.tr_r5_optimistic, retrieval.tr_r1_expected, retrieval.ir_r1, retrieval.ir_r5_expected),
    *(retrieval.rsum, retrieval.rsum_expected, retrieval.ir_meanr),
]


@st.composite
def answered(draw):
    """Examples in groups, predictions, and both again in another order under other names."""
    rows = draw(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans()), min_size=1, max_size=30))
    examples = [Example(f"e{n}", Query((), ""), Label(str(label)), f"g{of}") for n, (of, label, _) in enumerate(rows)]
    predictions = [Prediction(f"e{n}", str(answer)) for n, (*_, answer) in enumerate(rows)]
    names = draw(st.permutations(range(len(rows))))
    new = {example.id: f"new {name}" for example, name in zip(examples, names, strict=True)}
    renamed = [replace(example, id=new[example.id], group=f"of {example.group}") for example in examples]
    again = [replace(prediction, example_id=new[prediction.example_id]) for prediction in predictions]
    return examples, predictions, draw(st.permutations(renamed)), draw(st.permutations(again)), new


@quick
@given(answered())
def test_names_and_order_do_not_count(case):
    examples, predictions, renamed, again, new = case
    first, second = accuracy(predictions, examples), accuracy(again, renamed)
    assert second.per_example == {new[name]: value for name, value in first.per_example.items()}
    assert replace(first, per_example={}) == replace(second, per_example={})
    first, second = consistency(predictions, examples), consistency(again, renamed)
    assert second.per_example == {f"of {group}": value for group, value in first.per_example.items()}
    assert replace(first, per_example={}) == replace(second, per_example={})


@st.composite
def galleries_with_scores(draw):
    """Examples of one fold, images in the order of their first texts, and scores of few values."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=8))
    owner = [row for row, size in enumerate(sizes) for _ in range(size)]
    levels = st.sampled_from([-np.inf, -1.0, 0.0, 0.25, 0.5, 1.0, np.inf])
    scores = draw(
        arrays.arrays(draw(st.sampled_from([np.float16, np.float32])), (len(sizes), len(owner)), elements=levels)
    )
    return owner, scores


def split(owner, image, text):
    """One example per text; `image` and `text` name rows and columns."""
    return [
        Example(text(column), Query((ImageRef(Path(), image(row)),), ""), Caption(image(row)), "")
        for column, row in enumerate(owner)
    ]


@quick
@given(galleries_with_scores(), st.randoms(use_true_random=False), st.integers(1, 60))
def test_retrieval_needs_neither_names_nor_order_nor_blocks(case, toss, at_once):
    owner, scores = case
    examples = split(owner, lambda row: f"p{row}", lambda column: f"t{column}")
    rankings = from_matrix(scores, *galleries(examples))
    with patch.object(ranks_module, "_SCORES_AT_ONCE", at_once):
        assert from_matrix(scores, *galleries(examples)) == rankings

    codes = toss.sample(range(100), len(scores) + len(owner))
    renamed = split(owner, lambda row: f"new {codes[row]}", lambda column: f"x {codes[len(scores) + column]}")
    columns = toss.sample(range(len(owner)), len(owner))
    shuffled = [renamed[column] for column in columns]
    rows = list(dict.fromkeys(owner[column] for column in columns))
    again = from_matrix(scores[np.ix_(rows, columns)], *galleries(shuffled))
    toss.shuffle(again)
    toss.shuffle(shuffled)
    for metric in RETRIEVAL:
        first, second = metric(rankings, examples), metric(again, shuffled)
        assert second.value == pytest.approx(first.value, rel=1e-12)
        assert second.stderr == pytest.approx(first.stderr, rel=1e-9, abs=1e-9)
        assert sorted(second.per_example.values()) == sorted(first.per_example.values())
        assert metric(rankings[::-1], examples[::-1]) == first


anything = st.text(st.characters(exclude_categories=()))
pieces = st.lists(
    st.sampled_from([*PUNCTUATION, *ARTICLES, *NUMBERS, *CONTRACTIONS, ".", ".5", "1,0", "7", "n'İ\n", " "])
)


@settings(deadline=None, max_examples=300)
@given(anything | pieces.map("".join))
def test_a_normal_answer_stays_as_it_is(text):
    """The official code takes out 32 periods at most, so only an answer with more of them changes again."""
    few = text.replace(".", "", max(0, text.count(".") - MAX_PERIODS))
    assert normalise(normalise(few)) == normalise(few)
    assert normalise("x" + "." * (MAX_PERIODS + 1)) == "x."
