from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from vlbench.core.errors import DataError, ExitCode, VlbenchError
from vlbench.core.record import Coverage, RunRecord
from vlbench.records.folder import RunFolder, read_run
from vlbench.records.lock import run_lock
from vlbench.report.compare.comparison import compare_runs
from vlbench.report.compare.text import comparison_json, comparison_text
from vlbench.report.tables.per_example import read_units
from vlbench.report.tables.results import signed

A = [1.0] * 60 + [0.0] * 40
B = [0.0] * 4 + [1.0] * 56 + [1.0] * 20 + [0.0] * 20


def test_two_runs(make_run: Callable[..., Path]) -> None:
    found = compare_runs([make_run("a", A), make_run("b", B, model="vilt")])
    (pair,) = found.pairs
    assert [one.name for one in found.systems] == ["cvlp-tiny", "vilt-tiny"]
    assert (pair.overall.a, pair.overall.b) == (pytest.approx(60), pytest.approx(76))
    assert pair.overall.difference.effect == pytest.approx(16)
    assert pair.overall.difference.p == pytest.approx(stats.binomtest(20, 24).pvalue)
    assert pair.flips.fixed == tuple(f"e{place:04}" for place in range(60, 80))
    assert pair.flips.broken == ("e0000", "e0001", "e0002", "e0003")
    text = comparison_text(found)
    assert "20 fixed: e0060, e0061" in text and "and 10 more" in text and "4 broken" in text
    assert "they differ" in text and "variation in training is not counted" in text


def test_slices_are_corrected_for_looking_at_several(make_run: Callable[..., Path]) -> None:
    found = compare_runs([make_run("a", A), make_run("b", B, model="vilt")], by="kind")
    ps = [one.difference.p for one in found.pairs[0].slices]
    assert [one.part for one in found.pairs[0].slices] == ["even", "odd"]
    assert ps == [pytest.approx(stats.binomtest(10, 12).pvalue)] * 2
    assert [one.holm for one in found.pairs[0].slices] == [pytest.approx(2 * ps[0])] * 2
    assert "p (Holm)" in comparison_text(found)
    with pytest.raises(VlbenchError, match="unknown tag 'kin': did you mean 'kind'"):
        compare_runs([make_run("c", A), make_run("d", B)], by="kin")


def test_seeds_of_one_system_stand_together(make_run: Callable[..., Path]) -> None:
    a = [make_run(f"a{seed}", A[seed:] + A[:seed], seed=seed) for seed in range(3)]
    b = [
        make_run(f"b{seed}", B[:60] + [1.0] * (20 - 2 * seed) + [0.0] * (20 + 2 * seed), seed=seed, model="vilt")
        for seed in range(3)
    ]
    found = compare_runs([*a, *b])
    assert [one.seeds for one in found.systems] == [(0, 1, 2), (0, 1, 2)]
    assert found.systems[1].spread == pytest.approx(2.0)  # 76, 74 and 72
    assert found.pairs[0].overall.difference.seed_stderr == pytest.approx((2.0**2 / 3) ** 0.5)
    of_seeds = found.pairs[0].overall.difference
    assert f"standard error of B - A: {of_seeds.stderr:.2f}, from seeds 1.15" in comparison_text(found)
    assert of_seeds.stderr < (of_seeds.seed_stderr**2 + of_seeds.test_stderr**2) ** 0.5  # shared chance counts once
    alone = compare_runs(a)
    assert [one.name for one in alone.systems] == ["cvlp-tiny (seed 0)", "cvlp-tiny (seed 1)", "cvlp-tiny (seed 2)"]


def copied(run: Path, name: str) -> Path:
    return Path(shutil.copytree(run, run.parent / name))


def test_a_copy_of_a_run_does_not_count_again(make_run: Callable[..., Path]) -> None:
    seeds = [make_run(f"a{seed}", A[seed:] + A[:seed], seed=seed) for seed in range(3)]
    b = make_run("b", B, model="vilt")
    found = compare_runs([*seeds, b, copied(seeds[1], "z-copy")])
    assert [(one.name, one.seeds) for one in found.systems] == [("cvlp-tiny", (0, 1, 2)), ("vilt-tiny", (0,))]
    assert found.notes[0] == f"{seeds[1]} is the same run as {b.parent / 'z-copy'} and is counted once"
    assert "note: " in comparison_text(found)
    assert not any("same run" in note for note in compare_runs([*seeds, b]).notes)


def test_systems_of_one_name_are_told_apart_by_what_differs(make_run: Callable[..., Path], record: RunRecord) -> None:
    a = make_run("a", A)
    b = make_run("b", B, spec=record.spec.model_copy(update={"limit_mode": "head"}))
    names = ["cvlp-tiny (limit_mode random)", "cvlp-tiny (limit_mode head)"]
    assert [one.name for one in compare_runs([a, b]).systems] == names
    again = copied(a, "again")  # nothing else to compare with: the run against its own rerun
    assert [one.name for one in compare_runs([a, again]).systems] == [f"cvlp-tiny ({a})", f"cvlp-tiny ({again})"]


def test_json_is_whole(make_run: Callable[..., Path]) -> None:
    found = json.loads(json.dumps(comparison_json(compare_runs([make_run("a", A), make_run("b", A)])), allow_nan=False))
    assert found["pairs"][0]["overall"]["effect"] == 0.0
    assert found["pairs"][0]["fixed"] == []
    one = compare_runs([make_run("c", A, together=100), make_run("d", B, together=100)])
    assert comparison_json(one)["pairs"][0]["overall"]["ci95"] is None  # type: ignore[index]
    assert "one group of examples is too few for a test" in comparison_text(one)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"status": "interrupted"}, "is interrupted: finish it first"), ({"results": ()}, "has no scores")],
)
def test_runs_that_cannot_be_compared(make_run: Callable[..., Path], changed: dict[str, object], reason: str) -> None:
    with pytest.raises(VlbenchError, match=reason) as caught:
        compare_runs([make_run("a", A), make_run("b", B, **changed)])
    assert caught.value.exit_code == ExitCode.NOT_COMPARABLE


@pytest.mark.parametrize(("field", "value"), [("split", "dev"), ("version", 2), ("source", "real"), ("name", "gqa")])
def test_other_data_is_refused(make_run: Callable[..., Path], record: RunRecord, field: str, value: object) -> None:
    a, b = make_run("a", A), make_run("b", B)
    of_b = read_run(b)
    RunFolder(b).write_record(of_b.model_copy(update={"task": of_b.task.model_copy(update={field: value})}))
    with pytest.raises(VlbenchError, match="differ in their") as caught:
        compare_runs([a, b])
    assert caught.value.exit_code == 10


def test_other_examples_are_refused(make_run: Callable[..., Path], vlbench: Callable[..., object]) -> None:
    a, b = make_run("a", A), make_run("b", B[:-1])
    done = vlbench("compare", a, b)
    assert (done.code, done.out) == (10, "") and "1 are only in the first" in done.err  # type: ignore[attr-defined]
    c = make_run("c", A, together=2)
    with pytest.raises(VlbenchError, match="other questions or answers"):
        compare_runs([a, c])


def test_faults(make_run: Callable[..., Path]) -> None:
    a = make_run("a", A)
    with pytest.raises(VlbenchError, match="give two runs or more"):
        compare_runs([a])
    b = make_run("b", B)
    with pytest.raises(VlbenchError, match="unknown metric 'acuracy': did you mean 'accuracy'") as caught:
        compare_runs([a, b], metric="acuracy")
    assert caught.value.exit_code == ExitCode.USAGE
    first = read_run(b).results[0]
    more = (first, first.model_copy(update={"metric": "consistency"}))
    RunFolder(b).write_record(read_run(b).model_copy(update={"results": more}))
    with pytest.raises(VlbenchError, match="has no 'consistency': it has accuracy") as caught:
        compare_runs([a, b], metric="consistency")
    assert caught.value.exit_code == ExitCode.NOT_COMPARABLE
    (a / "samples.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="was edited or damaged"):
        compare_runs([a, make_run("c", B)])
    (a / "run.json").write_text("{")
    with pytest.raises(DataError, match="corrupt"):
        compare_runs([a, make_run("d", B)])


def test_values_that_do_not_make_the_figure_are_not_compared(make_run: Callable[..., Path]) -> None:
    a = make_run("a", A)
    record = read_run(a)
    result = record.results[0]
    moved = record.model_copy(update={"results": (result.model_copy(update={"value": result.value + 0.1}),)})
    with pytest.raises(VlbenchError, match="has no per-example values"):
        read_units(RunFolder(a), moved, "accuracy")
    whole = record.model_copy(update={"results": (result, result.model_copy(update={"metric": "consistency"}))})
    assert len(read_units(RunFolder(a), whole, "consistency").values) == 100


def trained(record: RunRecord, seed: int, **recipe: float) -> dict[str, object]:
    """What a record says of a training by another recipe."""
    assert record.train
    told = record.train.recipe.model_copy(update=recipe)
    spec = record.spec.model_copy(update={"train": told, "seed": seed, "controls": ()})
    return {"spec": spec, "train": record.train.model_copy(update={"recipe": told})}


def test_another_recipe_is_no_other_seed(make_run: Callable[..., Path], record: RunRecord) -> None:
    runs = [
        make_run("a", A, **trained(record, 2, steps=1, lr=0.01)),
        make_run("b", B, **trained(record, 0, steps=5, lr=0.0002)),
    ]
    found = compare_runs(runs)
    assert [one.name for one in found.systems] == ["cvlp-tiny (lr 0.01, steps 1)", "cvlp-tiny (lr 0.0002, steps 5)"]
    assert found.notes == ("the runs differ in lr (0.01, 0.0002), steps (1, 5)",)
    assert [one.seeds for one in found.systems] == [(2,), (0,)]


def test_another_protocol_is_named_and_a_recipe_that_nobody_followed_is_not(
    make_run: Callable[..., Path], record: RunRecord
) -> None:
    given = record.spec.model_copy(update={"mode": "eval", "controls": ()})
    runs = [make_run("a", A, **trained(record, 0, steps=5)), make_run("b", B, spec=given, train=None)]
    found = compare_runs(runs)
    assert [one.name for one in found.systems] == ["cvlp-tiny (finetune on train)", "cvlp-tiny (eval)"]
    assert found.notes == ("the runs differ in protocol (finetune on train, eval)",)


def test_no_more_than_five_settings_are_named(make_run: Callable[..., Path], record: RunRecord) -> None:
    many = {"lr": 0.1, "head_lr": 0.1, "warmup": 0.5, "clip": 1.0, "ema": 0.9, "epochs": 2, "steps": 7}
    found = compare_runs([make_run("a", A), make_run("b", B, **trained(record, 0, **many))])
    assert found.notes[0].count("(none, ") == 5 and found.notes[0].endswith("ema (none, 0.9) and 2 more")
    alike = compare_runs(
        [make_run(f"c{warmup}", A, **trained(record, 0, **many | {"steps": warmup})) for warmup in (1, 2)]
    )
    assert [one.name for one in alike.systems] == ["cvlp-tiny (steps 1)", "cvlp-tiny (steps 2)"]


def test_seeds_alone_are_compared_in_the_order_given(make_run: Callable[..., Path]) -> None:
    high, low = make_run("high", B, seed=2), make_run("low", A, seed=0)
    assert [one.seeds for one in compare_runs([high, low]).systems] == [(2,), (0,)]


def test_the_same_run_twice_is_said(make_run: Callable[..., Path]) -> None:
    a = make_run("a", A)
    assert compare_runs([a, a]).notes == ("both are the same run",)
    assert compare_runs([a, a / "run.json", a]).notes == ("all are the same run",)
    assert compare_runs([a, copied(a, "again")]).notes == ("both are the same run: copies, or reruns",)


def test_the_error_of_a_mean_over_seeds_is_that_of_the_mean(make_run: Callable[..., Path]) -> None:
    chance = np.random.default_rng(0)
    runs = [
        make_run(f"a{seed}", (chance.uniform(size=400) < 0.5).astype(float).tolist(), seed=seed) for seed in range(4)
    ]
    system = compare_runs([*runs, make_run("b", [1.0, 0.0] * 200, model="vilt")]).systems[0]
    assert system.stderr == pytest.approx(100 * (0.25 / (4 * 400)) ** 0.5, rel=0.1)  # four tosses of each coin


def test_each_row_has_its_method(make_run: Callable[..., Path]) -> None:
    """Over all, examples hang together in pairs; in each slice, of which a pair has one example, they do not."""
    found = compare_runs([make_run("a", A, together=2), make_run("b", B, model="vilt", together=2)], by="kind")
    tests = [one.difference.test for one in (found.pairs[0].overall, *found.pairs[0].slices)]
    assert tests == ["permutation of 50 groups", "McNemar", "McNemar"]
    assert "p: permutation of 50 groups (slices: McNemar); interval: 95 % percentile" in comparison_text(found)
    same = compare_runs(
        [make_run("c", [1.0, 0.0] * 50), make_run("d", [1.0, 1.0, 1.0, 0.0] * 25, model="vilt")], by="kind"
    )
    assert "interval: 95 % percentile bootstrap over 50 to 100 groups (row even: 95 % Clopper-Pearson" in (
        comparison_text(same)
    )
    alone = compare_runs([make_run("e", A), make_run("f", B, model="vilt")])
    assert "p: McNemar; interval: 95 % percentile bootstrap over 100 groups\n" in comparison_text(alone)


def test_a_difference_of_nothing_has_no_minus() -> None:
    assert [signed(value) for value in (-0.0, -0.004, 0.004, -0.006, 12.5)] == [
        "+0.00", "+0.00", "+0.00", "-0.01", "+12.50",
    ]  # fmt: skip


def test_examples_without_an_answer_are_named(make_run: Callable[..., Path]) -> None:
    a, b = make_run("a", A), make_run("b", B, model="vilt", coverage=Coverage(expected=8, scored=8, errors=2))
    assert f"{b}: 2 examples could not be answered and count as wrong" in compare_runs([a, b]).notes


def test_unfinished_and_limited_runs_are_left_out_where_two_remain(
    make_run: Callable[..., Path], record: RunRecord
) -> None:
    a, b = make_run("a", A), make_run("b", B, model="vilt")
    failed, limited = make_run("c", A, model="soho"), make_run("d", B, model="lxmert")
    for run, changed in (
        (failed, {"status": "failed"}),
        (limited, {"task": record.task.model_copy(update={"n_total": 9000})}),
    ):
        RunFolder(run).write_record(read_run(run).model_copy(update=changed))
    found, plain = compare_runs([failed, a, limited, b]), compare_runs([a, b])
    assert (found.systems, found.pairs) == (plain.systems, plain.pairs)
    assert found.notes[:2] == (
        f"left out: {failed}, which is failed",
        f"left out: {limited}, limited to 4,000 of 9,000 examples",
    )
    with pytest.raises(VlbenchError, match="is failed: finish it first"):
        compare_runs([a, failed])


def test_folders_of_runs_that_were_rejected_at_once_do_not_count(make_run: Callable[..., Path], tmp_path: Path) -> None:
    """`compare runs/*/*/*` meets them as well; all that is left in them is the lock."""
    a, b, rejected = make_run("a", A), make_run("b", B, model="vilt"), tmp_path / "rejected"
    rejected.mkdir()
    with run_lock(rejected):
        pass
    assert compare_runs([rejected, a, b]) == compare_runs([a, b])
    with pytest.raises(VlbenchError, match="rejected holds no run"):
        compare_runs([a, rejected])
    (rejected / "samples.parquet").touch()
    with pytest.raises(VlbenchError, match="rejected holds no run"):
        compare_runs([rejected, a, b])


def test_where_lower_is_better_fixed_means_lower(make_run: Callable[..., Path]) -> None:
    runs = [make_run("a", A), make_run("b", B, model="vilt")]
    for run in runs:
        record = read_run(run)
        results = tuple(one.model_copy(update={"higher_is_better": False}) for one in record.results)
        RunFolder(run).write_record(record.model_copy(update={"results": results}))
    (pair,) = compare_runs(runs).pairs
    assert pair.flips.fixed == ("e0000", "e0001", "e0002", "e0003")
    assert pair.flips.broken == tuple(f"e{place:04}" for place in range(60, 80))
