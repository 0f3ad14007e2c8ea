"""Ranks against sorting, recalls against all orders of ties, intervals against a plain bootstrap."""

import random
import statistics
import tracemalloc
from itertools import permutations
from math import floor, inf, isnan, nan
from pathlib import Path

import numpy as np
import pytest

from vlbench.core.errors import CoverageError, DataError
from vlbench.core.examples import Caption, Example, ImageRef, Query
from vlbench.core.gallery import galleries
from vlbench.core.results import MetricAbsentError, Ranking
from vlbench.metrics import ranks as ranks_module
from vlbench.metrics import retrieval
from vlbench.metrics.ranks import from_lists, from_matrix, ranks
from vlbench.metrics.retrieval import hit_probability, random_recalls

RECALLS = [f"{side}_r{k}" for side in ("tr", "ir") for k in (1, 5, 10)]
ALL = [
    *(f"{name}{ties}" for name in [*RECALLS, "rsum"] for ties in ("", "_optimistic", "_expected")),
    *("tr_medr", "ir_medr", "tr_meanr", "ir_meanr"),
]


def split(owner, fold=lambda row: ""):
    """One example per text, and their galleries; owner holds the row of each text's image."""
    return [
        Example(
            f"t{column}", Query((ImageRef(Path(), f"p{row}"),), "text"), Caption(f"p{row}", fold(row)), f"group {row}"
        )
        for column, row in enumerate(owner)
    ]


def drawn(images, seed, dtype=np.float32, levels=None, texts=None):
    """Scores and owners: one to six texts per image, or just as many as `texts`; few levels make ties."""
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(images), generator.integers(1, 7, images) if texts is None else texts)
    scores = generator.standard_normal((images, len(owner)))
    if levels:
        scores = np.round(scores * levels) / levels
    scores[owner, np.arange(len(owner))] += 1
    return scores.astype(dtype), owner


def by_sorting(row, right):
    """Where the first right answer comes when, among equals, right answers come first, and when they come last."""
    first = sorted(range(len(row)), key=lambda one: (-row[one], not right[one]))
    last = sorted(range(len(row)), key=lambda one: (-row[one], right[one]))
    best = max(score for score, is_right in zip(row, right, strict=True) if is_right)
    tied = sum(is_right and score == best for score, is_right in zip(row, right, strict=True))
    return (*(next(place for place, one in enumerate(order) if right[one]) for order in (first, last)), tied)


def value(name, rankings, examples):
    return getattr(retrieval, name)(rankings, examples).value


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("at_once", [1, 200, 1 << 20])
def test_ranks_are_those_of_sorting(dtype, levels, at_once, monkeypatch):
    monkeypatch.setattr(ranks_module, "_SCORES_AT_ONCE", at_once)
    scores, owner = drawn(23, 1, dtype, levels)
    owner = np.random.default_rng(2).permutation(owner)
    scores[3, 5], scores[4, 6], scores[:, 7] = inf, -inf, -inf
    counted = ranks(scores, owner)
    for row, plain in enumerate(scores.tolist()):
        assert by_sorting(plain, (owner == row).tolist()) == (
            *(counted.i2t_low[row], counted.i2t_high[row]),
            counted.i2t_positives[row],
        )
    for column, plain in enumerate(scores.T.tolist()):
        right = [row == owner[column] for row in range(len(scores))]
        assert by_sorting(plain, right) == (counted.t2i_low[column], counted.t2i_high[column], 1)


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("at_once", [1, 1 << 20])
@pytest.mark.parametrize("images", [4, 23])
def test_rankings_hold_the_ten_best_in_order(levels, at_once, images, monkeypatch):
    monkeypatch.setattr(ranks_module, "_SCORES_AT_ONCE", at_once)
    scores, owner = drawn(images, 3, np.float16, levels)
    (gallery,) = galleries(split(owner))
    rankings = from_matrix(scores, gallery)
    keys = [f"p{row}" for row in range(images)]
    assert [(item.query_id, item.direction) for item in rankings] == [
        *((key, "i2t") for key in keys),
        *((text, "t2i") for text in gallery.text_ids),
    ]
    for item, row in zip(rankings, [*scores, *scores.T], strict=True):
        candidates = gallery.text_ids if item.direction == "i2t" else keys
        in_order = sorted(zip(candidates, row.tolist(), strict=True), key=lambda pair: -pair[1])
        assert list(item.top) == in_order[:11]
        assert item.depth is None


def test_scores_may_be_a_file_and_are_not_copied(tmp_path):
    scores, owner = drawn(600, 4, texts=5)
    np.save(tmp_path / "scores.npy", scores)
    mapped = np.load(tmp_path / "scores.npy", mmap_mode="r")
    expected = ranks(scores, owner)
    tracemalloc.start()
    counted = ranks(mapped, owner)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(counted.i2t_high, expected.i2t_high) and np.array_equal(counted.t2i_high, expected.t2i_high)
    assert peak < scores.nbytes / 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("place", [(0, 0), (7, 3), (11, 20)])
def test_what_is_no_number_is_named(place, dtype, monkeypatch):
    monkeypatch.setattr(ranks_module, "_SCORES_AT_ONCE", 50)
    scores, owner = drawn(12, 5, dtype, texts=2)
    scores[place] = nan
    with pytest.raises(DataError, match=f"row {place[0]}, column {place[1]} is not a number"):
        ranks(scores, owner)


@pytest.mark.parametrize(
    ("shape", "owner", "message"),
    [
        ((2, 3), [0, 1], r"shape \(2, 3\) and owners \(2,\)"),
        ((6,), [0] * 6, r"shape \(6,\)"),
        ((2, 3), [0, 0, 0], "row 1 has no text"),
        ((2, 3), [0, 1, 2], "rows 0 to 2"),
        ((2, 3), [0, 1, -1], "rows -1 to 1"),
    ],
)
def test_shapes_must_fit(shape, owner, message):
    with pytest.raises(DataError, match=message):
        ranks(np.zeros(shape), np.array(owner))


def test_scores_are_floating_point():
    with pytest.raises(DataError, match="type int64"):
        ranks(np.zeros((1, 1), np.int64), np.array([0]))


def test_a_matrix_must_fit_its_gallery():
    (gallery,) = galleries(split([0, 0, 1]))
    with pytest.raises(DataError, match="2 images by 3 texts"):
        from_matrix(np.zeros((3, 2)), gallery)


@pytest.mark.parametrize("wrong", range(4))
@pytest.mark.parametrize("right", [1, 2, 3])
@pytest.mark.parametrize("low", [0, 2])
def test_expected_recall_is_the_mean_over_all_orders(wrong, right, low):
    item = Ranking("q", "i2t", low, low + wrong, right)
    orders = [[False] * low + list(order) for order in permutations([True] * right + [False] * wrong)]
    for k in range(1, 9):
        assert hit_probability(item, k, "expected") == pytest.approx(
            statistics.fmean(any(order[:k]) for order in orders)
        )
        assert hit_probability(item, k, "pessimistic") == min(any(order[:k]) for order in orders)
        assert hit_probability(item, k, "optimistic") == max(any(order[:k]) for order in orders)


@pytest.mark.parametrize("levels", [None, 1])
def test_figures_are_those_of_plain_ranks(levels):
    scores, owner = drawn(40, 6, levels=levels)
    examples = split(owner)
    rankings = from_matrix(scores, *galleries(examples))
    tr = [by_sorting(row, (owner == image).tolist()) for image, row in enumerate(scores.tolist())]
    ir = [by_sorting(row, [one == owner[text] for one in range(40)]) for text, row in enumerate(scores.T.tolist())]
    for side, ranked in (("tr", tr), ("ir", ir)):
        for k in (1, 5, 10):
            pessimistic = 100 * statistics.fmean(high < k for _, high, _ in ranked)
            optimistic = 100 * statistics.fmean(low < k for low, _, _ in ranked)
            assert value(f"{side}_r{k}", rankings, examples) == pytest.approx(pessimistic)
            assert value(f"{side}_r{k}_optimistic", rankings, examples) == pytest.approx(optimistic)
            assert pessimistic <= value(f"{side}_r{k}_expected", rankings, examples) <= optimistic
        assert value(f"{side}_medr", rankings, examples) == floor(statistics.median(high for _, high, _ in ranked)) + 1
        mean = statistics.fmean(high for _, high, _ in ranked) + 1
        assert value(f"{side}_meanr", rankings, examples) == pytest.approx(mean)
    for ties in ("", "_optimistic", "_expected"):
        total = sum(value(name + ties, rankings, examples) for name in RECALLS)
        assert value(f"rsum{ties}", rankings, examples) == pytest.approx(total)


def test_scores_say_what_they_are():
    scores, owner = drawn(30, 7)
    examples = split(owner)
    rankings = from_matrix(scores, *galleries(examples))
    for name in ALL:
        score = getattr(retrieval, name)(rankings, examples)
        assert score.name == name and getattr(retrieval, name).__doc__
        assert score.n == (len(owner) if name.startswith("ir") else 30)
        assert score.higher_is_better == ("_me" not in name)
        resampled = name.startswith("rsum") or "meanr" in name
        how = "95 % percentile bootstrap over 30 groups" if resampled else "95 % Clopper-Pearson over 30 groups"
        assert score.method.startswith("no interval" if "medr" in name else how)
    ids = {"tr_r1": {f"p{row}" for row in range(30)}, "ir_r1": {f"t{column}" for column in range(len(owner))}}
    for name, expected in ids.items():
        units = getattr(retrieval, name)(rankings, examples).per_example
        assert units.keys() == expected and set(units.values()) == {0.0, 1.0}


def test_a_scorer_that_knows_nothing_gets_what_chance_gives():
    owner = np.repeat(np.arange(30), np.random.default_rng(8).integers(1, 7, 30))
    examples = split(owner)
    rankings = from_matrix(np.full((30, len(owner)), 0.5, np.float16), *galleries(examples))
    expected = random_recalls(examples)
    assert expected.keys() == set(RECALLS)
    for name in RECALLS:
        assert value(name, rankings, examples) == 0
        assert value(f"{name}_optimistic", rankings, examples) == 100
        assert value(f"{name}_expected", rankings, examples) == pytest.approx(expected[name], rel=1e-12)
    assert expected["ir_r5"] == pytest.approx(100 * 5 / 30)


def test_chance_is_that_of_drawing_at_random():
    """Two folds: three images with 1, 2 and 3 texts; two images with 4 each."""
    owner = [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4]
    figures = random_recalls(split(owner, lambda row: "a" if row < 3 else "b"))
    toss = random.Random(9)

    def simulated(k):
        folds = [[owner[:6], range(3)], [owner[6:], range(3, 5)]]
        hits = [
            statistics.fmean(row in toss.sample(texts, min(k, len(texts))) for row in rows for _ in range(3000))
            for texts, rows in folds
        ]
        return 100 * statistics.fmean(hits)

    for k in (1, 5):
        assert figures[f"tr_r{k}"] == pytest.approx(simulated(k), abs=2)
    assert figures["ir_r1"] == pytest.approx(100 * (1 / 3 + 1 / 2) / 2)
    assert figures["tr_r10"] == figures["ir_r5"] == 100


def test_the_same_text_of_two_pictures_is_a_tie():
    """Texts 1 and 2 read the same, and belong to different images."""
    examples = split([0, 0, 1])
    rankings = from_matrix(np.array([[0.1, 0.9, 0.9], [0.0, 0.7, 0.7]]), *galleries(examples))
    first, second, *_ = rankings
    assert (first.rank_low, first.rank_high, first.positives) == (0, 1, 1)
    assert (second.rank_low, second.rank_high, second.positives) == (0, 1, 1)
    assert [value(f"tr_r1{ties}", rankings, examples) for ties in ("", "_expected", "_optimistic")] == [0, 50, 100]


def test_the_other_texts_of_a_picture_never_count_against_it():
    examples = split([0, 0, 0, 1])
    rankings = from_matrix(np.array([[0.9, 0.9, 0.5, 0.7], [0.1, 0.1, 0.1, 0.2]]), *galleries(examples))
    assert (rankings[0].rank_low, rankings[0].rank_high, rankings[0].positives) == (0, 0, 2)
    assert value("tr_r1", rankings, examples) == 100


@pytest.mark.parametrize("name", ALL)
def test_folds_are_searched_apart_and_averaged(name):
    scores, owner = drawn(30, 10, levels=2)
    fold = lambda row: "first" if row < 20 else "second"  # noqa: E731
    examples = split(owner, fold)
    rankings, figures = [], []
    for gallery, rows in zip(galleries(examples), (slice(20), slice(20, 30)), strict=True):
        columns = np.isin(owner, np.arange(30)[rows])
        part = from_matrix(scores[rows, columns], gallery)
        rankings += part
        figures.append(value(name, part, [one for one in examples if one.reference.fold == gallery.fold]))
    assert value(name, rankings, examples) == pytest.approx(statistics.fmean(figures))


def plain_bootstrap(figure, images, draws=1500):
    """The standard error and the quantiles of a figure of whole images drawn with replacement."""
    toss = random.Random(11)
    figures = [figure(toss.choices(images, k=len(images))) for _ in range(draws)]
    low, *_, high = statistics.quantiles(figures, n=40)
    return statistics.stdev(figures), low, high


@pytest.mark.parametrize("name", ["tr_r1", "ir_r5", "ir_meanr", "rsum", "rsum_expected"])
def test_intervals_draw_whole_pictures(name):
    scores, owner = drawn(80, 12, levels=2)
    examples = split(owner)
    scores += np.random.default_rng(13).standard_normal((80, 1)) * (owner == np.arange(80)[:, None])  # hang together
    rankings = from_matrix(scores.astype(np.float64), *galleries(examples))
    ties = "expected" if name.endswith("expected") else "pessimistic"

    def recall(items, k):
        return 100 * statistics.fmean(hit_probability(item, k, ties) for item in items)

    def figure(chosen):
        tr = [rankings[row] for row in chosen]
        ir = [item for row in chosen for item in texts[row]]
        match name:
            case "tr_r1":
                return recall(tr, 1)
            case "ir_r5":
                return recall(ir, 5)
            case "ir_meanr":
                return statistics.fmean(item.rank_high for item in ir) + 1
        return sum(recall(items, k) for items in (tr, ir) for k in (1, 5, 10))

    texts = [[rankings[80 + column] for column in np.flatnonzero(owner == row)] for row in range(80)]
    score = getattr(retrieval, name)(rankings, examples)
    assert score.value == pytest.approx(figure(range(80)))
    stderr, low, high = plain_bootstrap(figure, range(80))
    assert score.stderr == pytest.approx(stderr, rel=0.1)
    assert score.ci95 == pytest.approx((low, high), abs=0.4 * stderr)


def test_the_interval_of_the_sum_knows_folds():
    """Folds of 60 and 20 images: one image of the small one weighs as much as three of the other."""
    scores, owner = drawn(80, 19)
    examples = split(owner, lambda row: "large" if row < 60 else "small")
    rankings = []
    for gallery, rows in zip(galleries(examples), (slice(60), slice(60, 80)), strict=True):
        rankings += from_matrix(scores[rows, np.isin(owner, np.arange(80)[rows])], gallery)
    of = {item.id: item.reference.image for item in examples}
    texts = {row: [item for item in rankings if of.get(item.query_id) == f"p{row}"] for row in range(80)}
    images = {item.query_id: item for item in rankings if item.direction == "i2t"}

    def figure(chosen):
        total = 0
        for fold in ([row for row in chosen if row < 60], [row for row in chosen if row >= 60]):
            for items in ([images[f"p{row}"] for row in fold], [item for row in fold for item in texts[row]]):
                total += sum(50 * statistics.fmean(item.rank_high < k for item in items) for k in (1, 5, 10))
        return total

    score = retrieval.rsum(rankings, examples)
    assert score.value == pytest.approx(figure(range(80)))
    stderr, low, high = plain_bootstrap(figure, range(80))
    assert score.stderr == pytest.approx(stderr, rel=0.1)
    assert score.ci95 == pytest.approx((low, high), abs=0.4 * stderr)


def test_the_fraction_of_a_median_is_cut_off():
    rankings = [Ranking(f"p{row}", "i2t", rank, rank) for row, rank in enumerate((0, 1, 2, 5))]
    examples = split([0, 1, 2, 3])
    assert value("tr_medr", rankings, examples) == floor(1.5) + 1
    score = retrieval.tr_meanr(rankings, examples)
    assert score.value == 3 and score.ci95[0] >= 1 and score.ci95[1] <= 6


@pytest.mark.parametrize(("right", "total"), [(True, 600), (False, 0)])
def test_perfect_and_useless_scores_still_leave_doubt(right, total):
    owner = np.repeat(np.arange(40), 5)
    scores = (owner == np.arange(40)[:, None]).astype(np.float32) * (1 if right else -1)
    examples = split(owner)
    score = retrieval.rsum(from_matrix(scores, *galleries(examples)), examples)
    assert score.value == total and "Clopper-Pearson" in score.method
    assert score.ci95 == pytest.approx((600 * 0.025 ** (1 / 40), 600) if right else (0, 600 * (1 - 0.025 ** (1 / 40))))


@pytest.mark.parametrize("name", ["tr_r1", "ir_r1", "rsum"])
def test_a_fault_never_raises_the_lower_end(name):
    """200 texts of 40 images, all found first or all but one, which comes second."""
    owner = np.repeat(np.arange(40), 5)
    scores = (owner == np.arange(40)[:, None]).astype(np.float32)
    examples = split(owner)
    perfect = getattr(retrieval, name)(from_matrix(scores, *galleries(examples)), examples)
    scores[1, 0] = scores[0, 100] = 2  # text 0 finds image 1 first, image 0 finds text 100
    score = getattr(retrieval, name)(from_matrix(scores, *galleries(examples)), examples)
    assert score.value < perfect.value and score.ci95[0] <= perfect.ci95[0]


@pytest.mark.parametrize("name", ["tr_r1", "ir_r10", "rsum", "tr_medr", "ir_meanr"])
def test_every_query_must_be_ranked_once(name):
    scores, owner = drawn(8, 14, texts=2)
    examples = split(owner)
    rankings = from_matrix(scores, *galleries(examples))
    metric = getattr(retrieval, name)
    faults = {
        r"8 images .* 2 missing \(p0, p1\)": rankings[2:],
        r"16 texts .* 1 missing \(t15\)": rankings[:-1],
        r"1 duplicate \(p3\)": [*rankings, rankings[3]],
        r"1 extra \(cat\)": [*rankings, Ranking("cat", "t2i", 0, 0)],
        "8 missing": [],
    }
    for message, given in faults.items():
        with pytest.raises(CoverageError, match=message):
            metric(given, examples)
    with pytest.raises(CoverageError, match="no examples"):
        metric([], [])


def test_one_direction_alone_leaves_the_other_absent():
    scores, owner = drawn(8, 15, texts=2)
    examples = split(owner)
    images = from_matrix(scores, *galleries(examples))[:8]
    assert retrieval.tr_r1(images, examples).n == 8
    for metric in (retrieval.ir_r1, retrieval.rsum, retrieval.ir_medr):
        with pytest.raises(MetricAbsentError, match="no t2i rankings"):
            metric(images, examples)


def lists_of(scores, gallery, length=None):
    """What `from_lists` takes, both directions, by plain sorting."""
    images = [ref.key for ref in gallery.images]
    for direction, matrix, queries, candidates in (
        ("i2t", scores, images, gallery.text_ids),
        ("t2i", scores.T, gallery.text_ids, images),
    ):
        order = (-matrix).argsort(axis=1, kind="stable")[:, :length].tolist()
        yield direction, {query: [candidates[one] for one in row] for query, row in zip(queries, order, strict=True)}


def test_whole_lists_are_worth_what_their_scores_are():
    scores, owner = drawn(12, 16)
    examples = split(owner)
    (gallery,) = galleries(examples)
    listed = [one for direction, lists in lists_of(scores, gallery) for one in from_lists(lists, direction, gallery)]
    rankings = from_matrix(scores, gallery)
    assert [(item.query_id, item.rank_high) for item in listed] == [
        (item.query_id, item.rank_high) for item in rankings
    ]
    assert [[name for name, _ in item.top] for item in listed] == [[name for name, _ in item.top] for item in rankings]
    assert all(item.depth is None and isnan(item.top[0][1]) for item in listed)


def test_short_lists_answer_only_what_they_can():
    scores, owner = drawn(12, 17, texts=3)
    examples = split(owner)
    (gallery,) = galleries(examples)
    listed = [one for direction, lists in lists_of(scores, gallery, 5) for one in from_lists(lists, direction, gallery)]
    rankings = from_matrix(scores, gallery)
    assert any(item.rank_high == item.depth == 5 for item in listed), "some right answer must be further down"
    for name in ("tr_r1", "ir_r1", "tr_r5", "ir_r5", "tr_r5_expected"):
        assert value(name, listed, examples) == value(name, rankings, examples)
    for metric in (retrieval.ir_r10, retrieval.rsum, retrieval.ir_r10_optimistic, retrieval.ir_r10_expected):
        with pytest.raises(
            MetricAbsentError, match="lists of 5 candidates end above their right answer and before R@10"
        ):
            metric(listed, examples)
    for metric in (retrieval.ir_medr, retrieval.ir_meanr):
        with pytest.raises(MetricAbsentError, match="lists end above their right answer"):
            metric(listed, examples)


def test_short_lists_that_hold_every_right_answer_are_enough():
    owner = np.repeat(np.arange(12), 2)
    scores = np.random.default_rng(18).random((12, 24)) / 2 + (owner == np.arange(12)[:, None])
    examples = split(owner)
    (gallery,) = galleries(examples)
    listed = [one for direction, lists in lists_of(scores, gallery, 3) for one in from_lists(lists, direction, gallery)]
    for name in ("tr_r10", "ir_r10", "rsum", "tr_medr", "ir_meanr"):
        assert value(name, listed, examples) == value(name, from_matrix(scores, gallery), examples)


@pytest.mark.parametrize(
    ("direction", "lists", "message"),
    [
        ("i2t", {"t0": ["t0"]}, "'t0': expected a query"),
        ("t2i", {"t0": ["p0", "t1"]}, "'t0' holds t1"),
        ("i2t", {"p0": ["t0", "t1", "t0"]}, "'p0' holds t0 more than once"),
    ],
)
def test_lists_must_be_of_the_gallery(direction, lists, message):
    (gallery,) = galleries(split([0, 0, 1]))
    with pytest.raises(DataError, match=message):
        from_lists(lists, direction, gallery)
