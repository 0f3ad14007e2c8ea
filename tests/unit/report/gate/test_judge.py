from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from vlbench import __version__
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.record import Coverage
from vlbench.core.results import Direction, Ranking
from vlbench.metrics.significance import Seeds, seeded
from vlbench.records.collect import FoundRun, collect
from vlbench.records.folder import RunFolder, read_run
from vlbench.records.rankings import write_ranks
from vlbench.report.compare.comparison import scaled
from vlbench.report.gate.answers import read_answers
from vlbench.report.gate.baseline import Baseline, read_baseline, updated, write_baseline
from vlbench.report.gate.judge import Limits, judge
from vlbench.report.gate.trained import _conclusion
from vlbench.report.gate.verdict import Kind, Verdict, exit_code

SAID = [str(place % 3) for place in range(200)]


def runs(*folders: Path) -> tuple[FoundRun, ...]:
    return collect(folders).runs


def change(run: Path, **changed: Any) -> Path:
    RunFolder(run).write_record(read_run(run).model_copy(update=changed))
    return run


def figure(run: Path, value: float) -> Path:
    """The run with another figure."""
    (result,) = read_run(run).results
    return change(run, results=(result.model_copy(update={"value": value}),))


@pytest.fixture
def frozen(make_run: Callable[..., Path]) -> Callable[..., Path]:
    """A run of given weights, with the given answers; SAID are right."""

    def make(name: str, answers: list[str] = SAID, margin: float = 0.5, **changed: Any) -> Path:
        scores = [float(answer == right) for answer, right in zip(answers, SAID, strict=False)]
        run = make_run(name, scores, answers=answers, references=SAID, margin=margin, **changed)
        return change(run, spec=read_run(run).spec.model_copy(update={"mode": "eval"}))

    return make


@pytest.fixture
def seeds(make_run: Callable[..., Path]) -> Callable[..., list[Path]]:
    """Three seeds over 4,000 examples, with so much right in all and so much more or less by seed."""

    def make(name: str, right: float, spread: float = 0.0, n: int = 4000, count: int = 3) -> list[Path]:
        folders = []
        for seed in range(count):
            share = right + spread * (seed - 1)
            scores = (np.random.default_rng(seed).permutation(n) < share * n).astype(float)
            answers = ["True" if score else "False" for score in scores]
            folders.append(make_run(f"{name}{seed}", scores.tolist(), seed=seed, answers=answers))
        return folders

    return make


def kinds(verdicts: list[Verdict]) -> list[Kind]:
    return [verdict.kind for verdict in verdicts]


def base(*folders: Path) -> Baseline:
    return updated(None, runs(*folders), "first", "0.1.0")


def test_the_same_answers_pass_and_others_are_named(frozen: Callable[..., Path]) -> None:
    baseline = base(frozen("before"))
    assert kinds(judge(baseline, runs(frozen("same")), Limits())) == ["pass"]
    moved = [*SAID[:7], "changed", *SAID[8:]]
    (verdict,) = judge(baseline, runs(frozen("moved", moved)), Limits())
    assert (verdict.kind, verdict.flips, verdict.near_ties) == ("regression", ("e0007",), ())
    assert exit_code([verdict]) == 3


def test_near_ties_may_flip_to_what_they_led(frozen: Callable[..., Path]) -> None:
    baseline = base(frozen("before", margin=1e-5))
    moved = [*SAID[:7], "other", *SAID[8:]]
    (verdict,) = judge(baseline, runs(frozen("moved", moved)), Limits())
    assert (verdict.kind, verdict.near_ties) == ("pass", ("e0007",))
    assert "1 near ties changed" in verdict.reason
    elsewhere = [*SAID[:7], "giraffe", *SAID[8:]]
    (verdict,) = judge(baseline, runs(frozen("elsewhere", elsewhere)), Limits())
    assert (verdict.kind, verdict.near_ties, verdict.flips) == ("regression", (), ("e0007",))


def test_the_same_answers_with_another_figure_are_a_fault_of_the_metric(frozen: Callable[..., Path]) -> None:
    baseline = base(frozen("before"))
    other = figure(frozen("other"), 1.0)
    (verdict,) = judge(baseline, runs(other), Limits())
    assert verdict.kind == "regression" and verdict.drop == pytest.approx(99.0)
    assert "but not their accuracy" in verdict.reason


@pytest.mark.parametrize(
    ("value", "kind"), [(100.0, "pass"), (99.5, "pass"), (99.4, "regression"), (10.0, "regression")]
)
def test_a_near_tie_explains_no_more_than_it_can_move(frozen: Callable[..., Path], value: float, kind: Kind) -> None:
    """One of 200 answers is half a point."""
    baseline = base(frozen("before", margin=1e-5))
    moved = figure(frozen("moved", [*SAID[:7], "other", *SAID[8:]]), value)
    (verdict,) = judge(baseline, runs(moved), Limits())
    assert (verdict.kind, verdict.near_ties) == (kind, ("e0007",))
    if kind == "regression":
        assert f"moved by {100 - value:.2f}, of which they explain 0.50 at most" in verdict.reason


def test_a_figure_that_is_gone_is_no_pass_where_a_near_tie_flipped(frozen: Callable[..., Path]) -> None:
    baseline = base(frozen("before", margin=1e-5))
    moved = change(frozen("moved", [*SAID[:7], "other", *SAID[8:]]), results=())
    (verdict,) = judge(baseline, runs(moved), Limits())
    assert verdict.kind == "regression" and "its accuracy is gone" in verdict.reason


def test_other_references_are_no_verdict(frozen: Callable[..., Path]) -> None:
    baseline = base(frozen("before"))
    entry = baseline.frozen[0].model_copy(update={"data": "other"})
    (verdict,) = judge(baseline.model_copy(update={"frozen": (entry,)}), runs(frozen("same")), Limits())
    assert verdict.kind == "inconclusive" and "questions or references differ" in verdict.reason


def ranking(query: str, rank: int, *scores: float, direction: Direction = "t2i") -> Ranking:
    return Ranking(query, direction, rank, rank, top=tuple((f"c{place}", score) for place, score in enumerate(scores)))


def test_a_ranking_answers_in_both_directions_with_its_level(frozen: Callable[..., Path]) -> None:
    lead, close = (0.9, 0.5, 0.4, 0.3, 0.2, 0.1), (0.9, 0.89995, 0.4, 0.3, 0.2, 0.1)
    ranks = {
        "before": [ranking("sure", 0, *lead), ranking("close", 1, *close), ranking("a", 3, *lead, direction="i2t")],
        "swapped": [ranking("sure", 0, *lead), ranking("close", 0, *close), ranking("a", 2, *lead, direction="i2t")],
        "worse": [ranking("sure", 0, *lead), ranking("close", 1, *close), ranking("a", 7, *lead, direction="i2t")],
    }
    folders = {name: frozen(name) for name in ranks}
    for name, found in ranks.items():
        write_ranks(RunFolder(folders[name]).ranks, found)
    baseline = base(folders["before"])
    assert baseline.frozen[0].answers == {
        "i2t a": "R@5, first c0", "t2i close": "R@5, first c0", "t2i sure": "R@1, first c0"
    }  # fmt: skip
    assert baseline.frozen[0].near_ties == {"t2i close": ("R@5, first c1", "R@1, first c0", "R@1, first c1")}, (
        "what lies close on both sides of the right one's place"
    )
    (swapped,) = judge(baseline, runs(folders["swapped"]), Limits())
    assert (swapped.kind, swapped.near_ties) == ("pass", ("t2i close",))
    (worse,) = judge(baseline, runs(folders["worse"]), Limits())
    assert (worse.kind, worse.flips) == ("regression", ("i2t a",))


def near_levels(folder: Path, one: Ranking) -> set[str]:
    """The levels of recall that a query may stand at, by its scores."""
    write_ranks(RunFolder(folder).ranks, [one])
    found = read_answers(RunFolder(folder), 1e-4)
    unit = f"{one.direction} {one.query_id}"
    return {answer.partition(",")[0] for answer in (found.said[unit], *found.others.get(unit, ()))}


def test_near_ties_of_a_ranking_reach_over_a_run_of_neighbours(frozen: Callable[..., Path]) -> None:
    folder, step = frozen("run"), 1e-5

    def scores(*close: int) -> list[float]:
        """Eleven, far apart but for those places (from 1) that lie within a near tie."""
        return [2.0 - 0.1 * (min(close) if place in close else place) - step * place for place in range(1, 12)]

    assert near_levels(folder, ranking("q", 6, *scores(5, 6, 7))) == {"R@10", "R@5"}, "two places up"
    assert near_levels(folder, ranking("q", 4, *scores(5, 6, 7))) == {"R@5", "R@10"}
    assert near_levels(folder, ranking("q", 6, *scores(6, 7))) == {"R@10"}, "place 5 is far off"
    assert near_levels(folder, ranking("q", 9, *scores(10, 11))) == {"R@10", "not found"}
    assert near_levels(folder, ranking("q", 10, *scores(10, 11))) == {"not found", "R@10"}
    assert near_levels(folder, ranking("q", 9, *scores(9, 10))) == {"R@10"}
    assert near_levels(folder, ranking("q", 20, *scores(10, 11))) == {"not found"}, "its own score is not known"
    assert near_levels(folder, ranking("q", 0, *[float("nan")] * 11)) == {"R@1"}, "a list has no scores"
    both = replace(ranking("q", 4, *scores(5, 6), direction="i2t"), positives=2)
    assert near_levels(folder, both) == {"R@5"}, "two right answers: one stays first"


def test_seeds_of_two_recipes_are_not_one_system(seeds: Callable[..., list[Path]]) -> None:
    baseline = base(*seeds("before", 0.7))
    mixed = seeds("mixed", 0.7)
    spec = read_run(mixed[2]).spec
    change(mixed[2], spec=spec.model_copy(update={"answers": Path("others.json")}))
    (verdict,) = judge(baseline, runs(*mixed), Limits(max_drop=50.0))
    assert verdict.kind == "missing" and "differ in more than their seed" in verdict.reason
    with pytest.raises(VlbenchError, match="differ in more than their seed"):
        base(*mixed)


def test_other_examples_weights_and_versions(frozen: Callable[..., Path]) -> None:
    baseline = base(frozen("before"))
    fewer = frozen("fewer", SAID[:-1])
    assert kinds(judge(baseline, runs(fewer), Limits())) == ["inconclusive"]
    other = frozen("other")
    model = read_run(other).model
    change(other, model=model.model_copy(update={"weights_sha256": "b" * 64}))
    (verdict,) = judge(baseline, runs(other), Limits())
    assert verdict.kind == "pass" and "its weights differ" in verdict.reason
    newer = frozen("newer")
    change(newer, task=read_run(newer).task.model_copy(update={"version": 2}))
    assert "inconclusive" in kinds(judge(baseline, runs(newer), Limits()))


def test_what_is_not_there_never_passes(frozen: Callable[..., Path], make_run: Callable[..., Path]) -> None:
    baseline = base(frozen("before"))
    failed = change(frozen("failed"), status="failed", error="out of memory")
    (verdict,) = judge(baseline, runs(failed), Limits())
    assert verdict.kind == "missing" and "out of memory" in verdict.reason and exit_code([verdict]) == 4
    stranger = frozen("stranger", model="soho")
    assert kinds(judge(baseline, runs(stranger), Limits())) == ["missing", "missing"]
    broken = frozen("broken")
    (broken / "samples.parquet").write_bytes(b"PAR1")
    assert kinds(judge(baseline, runs(broken), Limits())) == ["missing"]
    assert exit_code([]) == 4
    unread = change(frozen("unread"), coverage=Coverage(expected=200, scored=200, errors=3))
    (verdict,) = judge(baseline, runs(unread), Limits())
    assert (verdict.kind, verdict.reason) == ("missing", "3 examples of its run could not be answered")
    trained = make_run("trained", [1.0, 0.0])
    assert kinds(judge(baseline, runs(frozen("again"), trained), Limits(), layers=("frozen",))) == ["pass"]


def test_trained_seeds(seeds: Callable[..., list[Path]]) -> None:
    baseline = base(*seeds("before", 0.7))
    assert baseline.trained[0].seeds == {"0": 0.7, "1": 0.7, "2": 0.7}
    worse, same, better = (
        runs(*seeds(name, right)) for name, right in (("worse", 0.65), ("same", 0.7), ("better", 0.75))
    )
    (verdict,) = judge(baseline, worse, Limits(max_drop=2.0))
    assert verdict.kind == "regression" and verdict.drop == pytest.approx(5.0)
    assert kinds(judge(baseline, same, Limits(max_drop=2.0))) == ["pass"]
    (verdict,) = judge(baseline, better, Limits(max_drop=2.0))
    assert verdict.kind == "improvement" and verdict.drop == pytest.approx(-5.0)


def test_few_examples_few_seeds_and_spread_are_inconclusive(seeds: Callable[..., list[Path]]) -> None:
    few = base(*seeds("few", 0.7, n=20))
    (verdict,) = judge(few, runs(*seeds("again", 0.6, n=20)), Limits())
    assert verdict.kind == "inconclusive" and "20 groups of examples: 50 or more" in verdict.reason
    two = judge(base(*seeds("three", 0.7, n=60)), runs(*seeds("two", 0.1, n=60, count=2)), Limits())
    assert kinds(two) == ["inconclusive"] and "3 on each side" in two[0].reason
    wide = base(*seeds("wide", 0.7, spread=0.05, n=5000))
    (verdict,) = judge(wide, runs(*seeds("wider", 0.66, spread=0.05, n=5000)), Limits())
    assert verdict.kind == "inconclusive" and verdict.detectable is not None and verdict.detectable > 5
    assert "would have been detected, and 0.5 is the limit" in verdict.reason


def test_speed_is_judged_only_on_the_same_machine(frozen: Callable[..., Path], tmp_path: Path) -> None:
    before, now, elsewhere = (frozen(name) for name in ("before", "now", "elsewhere"))
    efficiency, environment = read_run(now).efficiency, read_run(now).environment
    assert efficiency
    change(now, efficiency=efficiency.model_copy(update={"examples_per_second": 0.8 * efficiency.examples_per_second}))
    change(elsewhere, environment=environment.model_copy(update={"cpu": "another"}))
    baseline = base(before)

    def speed(run: Path, slowdown: float) -> Kind:
        limits = Limits(max_slowdown=slowdown)
        verdicts = judge(baseline, runs(run), limits, reference=runs(before))
        return next(verdict.kind for verdict in verdicts if verdict.layer == "speed")

    assert (speed(now, 0.1), speed(now, 0.3), speed(elsewhere, 0.1)) == ("regression", "pass", "inconclusive")
    assert [v.kind for v in judge(baseline, runs(now), Limits(max_slowdown=0.1)) if v.layer == "speed"] == ["missing"]


def test_the_command(frozen: Callable[..., Path], tmp_path: Path, vlbench: Callable[..., Any]) -> None:
    before, file = frozen("before"), tmp_path / "baseline.json"
    make = ("gate", before, "--baseline", file, "--update-baseline")
    assert vlbench(*make).code == 2 and not file.exists()
    assert vlbench(*make, "--reason", "first | <b>\n").code == 0
    assert vlbench(*make, "--reason", "first | <b>\n").code == 0  # once more, which changes nothing
    assert json.loads(file.read_text())["changes"] == [{"reason": "first | <b>", "version": __version__}]
    done = vlbench("gate", frozen("same"), "--baseline", file)
    assert done.code == 0 and done.out.startswith("1 pass")
    moved = frozen("moved", ["<b>\x01|"] * len(SAID))
    xml, page = tmp_path / "gate.xml", tmp_path / "summary.md"
    page.write_text("before\n")
    done = vlbench("gate", moved, "--baseline", file, "--junit", xml, "--summary", page)
    assert done.code == 3 and "200 flips: e0000" in done.out
    assert page.read_text() == f"before\n{done.out}"
    suite = ElementTree.parse(xml).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "1", "0")
    assert suite.find("testcase/failure") is not None
    found = json.loads(vlbench("gate", moved, "--baseline", file, "--json").out)
    assert found["exit_code"] == 3 and len(found["verdicts"][0]["flips"]) == 200
    assert vlbench("gate", moved, "--baseline", file, "--max-slowdown", "10%").code == 2
    again = ("--speed-reference", before, "--max-slowdown")
    assert vlbench("gate", moved, "--baseline", file, *again, "fast").code == 2
    (before / "run.json").write_text("{")
    done = vlbench("gate", before, "--baseline", file)
    assert done.code == 4 and "corrupt" in done.err


def test_an_update_keeps_other_subjects_and_its_history(frozen: Callable[..., Path], tmp_path: Path) -> None:
    old = base(frozen("a"), frozen("b", model="vilt"))
    new = updated(old, runs(frozen("c", ["x"] * 200)), "second", "0.1.0")
    assert [change.reason for change in new.changes] == ["first", "second"]
    assert len(new.frozen) == 2 and sorted({*new.frozen[0].answers.values()}) == ["x"]
    file = tmp_path / "baseline.json"
    write_baseline(file, new)
    assert read_baseline(file) == new
    text = file.read_text()
    write_baseline(file, read_baseline(file))
    assert file.read_text() == text and len(text.splitlines()) < 12


def test_an_update_says_what_moved_and_what_cannot_be_judged(
    frozen: Callable[..., Path], seeds: Callable[..., list[Path]], tmp_path: Path, vlbench: Callable[..., Any]
) -> None:
    make = ("--baseline", tmp_path / "baseline.json", "--update-baseline", "--reason", "x")
    told = vlbench("gate", frozen("a"), *seeds("t", 0.7, n=60, count=2), *make).out
    assert "(built-in world (plain), eval), frozen: new 100.00" in told
    assert "2 of the 3 seeds that a verdict needs" in told
    worse = frozen("b", [*SAID[:100], *["other"] * 100])
    told = vlbench("gate", worse, *make).out
    assert "frozen: 100.00 -> 50.00" in told and "trained: " not in told
    for idle in ("--json", "--layer=frozen"):
        assert vlbench("gate", worse, *make, idle).code == 2


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 9}', '{"schema_version": 1}'])
def test_baselines_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "baseline.json").write_text(text)
    with pytest.raises(DataError, match="baseline"):
        read_baseline(tmp_path / "baseline.json")


def test_a_baseline_with_a_key_given_twice(tmp_path: Path) -> None:
    (tmp_path / "baseline.json").write_text('{"schema_version": 1, "frozen": [], "frozen": []}')
    with pytest.raises(
        DataError, match=r"baseline\.json is no baseline \(the key 'frozen' comes twice in one object\)"
    ):
        read_baseline(tmp_path / "baseline.json")


def test_a_baseline_of_unfinished_or_incomplete_runs_is_refused(
    frozen: Callable[..., Path], seeds: Callable[..., list[Path]]
) -> None:
    with pytest.raises(VlbenchError, match="has no scores to keep"):
        base(change(frozen("a"), status="interrupted"))
    with pytest.raises(VlbenchError, match=r"3 examples of .* could not be answered: leave it out"):
        base(change(frozen("d"), coverage=Coverage(expected=200, scored=200, errors=3)))
    with pytest.raises(VlbenchError, match="give one run of frozen weights"):
        base(frozen("b"), frozen("c"))
    twice = [*seeds("x", 0.5, n=10), *seeds("y", 0.5, n=10)]
    with pytest.raises(VlbenchError, match="seed 0 is given twice"):
        base(*twice)


def three_seeds(generator: np.random.Generator, ease: np.ndarray, spread: float, shift: float = 0.0) -> Seeds:
    """Seeds that answer 2,000 examples by chance, easier or harder by seed."""
    names = [str(row) for row in range(2000)]
    chances = generator.normal(shift, spread, 3)
    return Seeds.of(
        [dict(zip(names, (generator.random(2000) < ease + one).astype(float).tolist(), strict=True)) for one in chances]
    )


GROUPS = {str(row): str(row // 4) for row in range(2000)}


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.01, 0.03])
def test_three_seeds_of_the_same_spec_are_no_regression(spread: float) -> None:
    """In at least 95 of 100 repetitions the verdict is pass or inconclusive (or, as rarely, improvement)."""
    generator, repeats, wrong = np.random.default_rng(int(1000 * spread)), 300, 0
    for _ in range(repeats):
        ease = np.repeat(generator.uniform(0.4, 0.9, 500), 4)
        before, now = (three_seeds(generator, ease, spread) for _ in range(2))
        drop = scaled(seeded(now, before, GROUPS), 100)
        wrong += _conclusion(drop, drop.beyond(0.5), 0.5)[0] == "regression"
    assert wrong / repeats <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.01])
def test_a_drop_beyond_the_limit_that_could_be_seen_is_seen(spread: float) -> None:
    """A drop of the limit and the smallest detectable one is a regression about four times in five; of three seeds the
    spread is hardly known, so that what is detectable is itself known roughly."""
    generator, repeats, seen = np.random.default_rng(7), 300, 0
    ease = np.repeat(generator.uniform(0.4, 0.9, 500), 4)
    same = [seeded(*(three_seeds(generator, ease, spread) for _ in range(2)), GROUPS) for _ in range(30)]
    shift = 0.005 + float(np.median([one.detectable for one in same]))
    for _ in range(repeats):
        before, now = three_seeds(generator, ease, spread), three_seeds(generator, ease, spread, -shift)
        drop = scaled(seeded(now, before, GROUPS), 100)
        seen += _conclusion(drop, drop.beyond(0.5), 0.5)[0] == "regression"
    assert 0.6 <= seen / repeats <= 0.95


@pytest.mark.parametrize("count", [1, 3])
def test_a_rerun_that_changed_nothing_passes_however_few_seeds_there_are(
    seeds: Callable[..., list[Path]], count: int
) -> None:
    baseline = base(*seeds("before", 0.7, 0.05, count=count))
    (verdict,) = judge(baseline, runs(*seeds("again", 0.7, 0.05, count=count)), Limits(max_drop=0.5))
    assert verdict.kind == "pass" and verdict.reason == "every seed and every example scores as before"
    (verdict,) = judge(baseline, runs(*seeds("other", 0.6, 0.05, count=count)), Limits(max_drop=9.5))
    assert verdict.kind == "inconclusive"


@pytest.mark.parametrize(("right", "kind"), [(0.7, "pass"), (0.3, "regression")])
def test_a_recipe_that_is_another_is_told(seeds: Callable[..., list[Path]], right: float, kind: Kind) -> None:
    baseline = base(*seeds("before", 0.7))
    now = seeds("now", right)
    for folder in now:
        train = read_run(folder).train
        assert train is not None
        change(folder, train=train.model_copy(update={"recipe": train.recipe.model_copy(update={"lr": 0.5})}))
    (verdict,) = judge(baseline, runs(*now), Limits(max_drop=0.5))
    was = baseline.trained[0].settings["lr"]
    assert verdict.kind == kind
    assert verdict.reason.endswith(f"settings that differ from the baseline's: lr 0.5 for {was}")
    (verdict,) = judge(baseline, runs(*seeds("alike", right)), Limits(max_drop=0.5))
    assert verdict.kind == kind and "settings that differ" not in verdict.reason


@pytest.mark.parametrize(("higher_is_better", "drop"), [(True, 2.0), (False, -2.0)])
def test_a_frozen_drop_is_positive_where_the_value_got_worse(
    higher_is_better: bool, drop: float, frozen: Callable[..., Path]
) -> None:
    """The value goes from 100 to 98."""
    run = frozen("a")
    (result,) = read_run(run).results
    change(run, results=(result.model_copy(update={"higher_is_better": higher_is_better}),))
    before = base(run)
    (verdict,) = judge(before, runs(figure(run, 98.0)), Limits(), ["frozen"])
    assert verdict.drop == pytest.approx(drop)
