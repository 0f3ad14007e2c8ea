from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlbench.core.record import Coverage, Result, RunRecord
from vlbench.report.tables.results import cell, heading, number, run_table, score_table, scoreboard

HOSTILE = "a|b\nc\r\td\x1b[31m‮ \\| `<b>` |---|"


def tables(text: str) -> list[list[dict[str, str]]]:
    """The Markdown tables of a text as rows by header, read by rules of its own."""
    found: list[list[dict[str, str]]] = []
    for block in text.split("\n\n"):
        lines = block.split("\n")
        if not lines[0].startswith("|"):
            continue
        cells = [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
        assert all(re.fullmatch(r"-+:?", part) for part in cells[1])
        found.append([dict(zip(cells[0], row, strict=True)) for row in cells[2:]])
    return found


def test_a_whole_run(record: RunRecord) -> None:
    text = run_table(record)
    main, kinds = tables(text)
    assert main == [
        {
            "metric": "accuracy", "value": "58.33", "95 % interval": "[56.75, 59.90]", "n": "4,000",
            "majority": "50.00", "blind control": "50.00", "examples/s": "1,812.5",
        },
        {
            "metric": "consistency", "value": "12.50", "95 % interval": "-", "n": "1,000",
            "majority": "-", "blind control": "-", "examples/s": "-",
        },
    ]  # fmt: skip
    assert kinds == [
        {"kind": "count", "accuracy": "55.50", "95 % interval": "[50.50, 60.50]", "n": "400", "blind control": "50.00"},
        {"kind": "spatial", "accuracy": "61.25", "95 % interval": "[56.25, 66.25]", "n": "3,600", "blind control": "-"},
    ]
    lines = text.splitlines()
    assert lines[0] == "nlvr2 test-p | cvlp-tiny | built-in world | n = 4,000"
    assert lines[1] == "trained from scratch, without pretrained weights"
    assert lines[-1] == "95 % interval: bootstrap clustered by group; test sampling only"


def test_parts_in_which_nothing_was_learned_are_named(record: RunRecord) -> None:
    seen = record.model_copy(update={"slice_majorities": {"kind": {"count": 50.0, "spatial": 56.3}}})
    _, kinds = tables(run_table(seen))
    assert [row["majority"] for row in kinds] == ["50.00", "56.30"]
    assert "not significantly above the image-blind baseline, by kind: spatial\n" in run_table(seen)
    blind = Result(metric="accuracy", value=50.0, n=1, slices={"kind": {"count": _at(50.51), "spatial": _at(50.0)}})
    low = {"slice_majorities": {"kind": {"count": 1.0, "spatial": 1.0}}, "controls": {"blind": (blind,)}}
    assert "by kind: count\n" in run_table(record.model_copy(update=low))
    assert "without sight" not in run_table(record)


def _at(value: float) -> Result:
    return Result(metric="accuracy", value=value, n=1)


def test_rules_for_ties_show_where_they_count() -> None:
    names = {"ir_r1": 5.0, "ir_r1_optimistic": 5.0, "ir_r5": 9.0, "ir_r5_expected": 9.5, "tr_r1_expected": 1.0}
    (main,) = tables(score_table("t", "s", [Result(metric=name, value=value, n=4) for name, value in names.items()]))
    assert [row["metric"] for row in main] == ["ir_r1", "ir_r5", "ir_r5_expected", "tr_r1_expected"]


def test_a_ranking_shows_its_chance(record: RunRecord) -> None:
    main, *_ = tables(run_table(record.model_copy(update={"chance": {"consistency": 5.0}, "majority": None})))
    assert [row["random ranking"] for row in main] == ["-", "5.00"]


def test_no_control_no_column(record: RunRecord) -> None:
    main, kinds = tables(run_table(record.model_copy(update={"controls": {}})))
    assert "blind control" not in main[0] and "blind control" not in kinds[0]


def test_heading_of_other_data_and_weights(record: RunRecord) -> None:
    task = record.task.model_copy(update={"source": "real"})
    model = record.model.model_copy(update={"from_scratch": False})
    real = record.model_copy(update={"task": task, "model": model})
    assert heading(real) == "nlvr2 test-p | cvlp-tiny | real data | n = 4,000"
    textured = record.spec.model_copy(update={"domain": "textured"})
    assert "| built-in world (textured) |" in heading(record.model_copy(update={"spec": textured}))


def test_base_from_scratch_in_capitals(record: RunRecord) -> None:
    model = record.model.model_copy(update={"size": "base"})
    warning = heading(record.model_copy(update={"model": model})).splitlines()[1]
    assert warning == warning.upper() and "FROM SCRATCH" in warning


@pytest.mark.parametrize(("mode", "how"), [("random", "chosen at random"), ("head", "the first ones")])
def test_limit_shows(record: RunRecord, mode: str, how: str) -> None:
    task = record.task.model_copy(update={"limit": 0.1, "n_scored": 400})
    spec = record.spec.model_copy(update={"limit": 0.1, "limit_mode": mode})
    assert f"limit 0.1: 400 of 4,000 examples, {how}" in run_table(
        record.model_copy(update={"task": task, "spec": spec})
    )


@pytest.mark.parametrize(("at_once", "line"), [(1, ""), (2, "beside 1 other trial;"), (3, "beside 2 other trials;")])
def test_a_speed_beside_other_trials_says_so(record: RunRecord, at_once: int, line: str) -> None:
    environment = record.environment.model_copy(update={"trials_at_once": at_once})
    text = run_table(record.model_copy(update={"environment": environment}))
    assert (line in text) and ("speed: measured" in text) == bool(line)


def test_every_partiality_shows(record: RunRecord) -> None:
    task = record.task.model_copy(update={"n_scored": 3998, "notes": ("split holds 4,000 where 4,001", "second")})
    coverage = Coverage(expected=4000, scored=3998, missing=1, duplicate=3, errors=2)
    lines = heading(record.model_copy(update={"task": task, "coverage": coverage})).splitlines()[2:]
    assert lines == [
        "partial: 3,998 of 4,000 examples",
        "note: split holds 4,000 where 4,001",
        "note: second",
        "coverage: 1 missing, 3 duplicate, 2 errors of 4,000 expected examples",
    ]


def test_examples_without_an_answer_are_named_under_the_table(record: RunRecord) -> None:
    said = "2 of 4,000 examples could not be answered and count as wrong, in values and in intervals"
    assert said not in run_table(record)
    coverage = Coverage(expected=4000, scored=4000, errors=2)
    text = run_table(record.model_copy(update={"coverage": coverage}))
    assert "coverage: 2 errors of 4,000 expected examples" in text and said in text.splitlines()


def test_an_unfinished_run_says_so(record: RunRecord) -> None:
    text = run_table(record.model_copy(update={"status": "failed", "error": "no\nroom", "results": ()}))
    assert "FAILED: this run is not finished (no\\nroom)" in text and "no results" in text
    assert "95 %" not in text


def test_a_method_that_says_it_itself_is_not_doubled(record: RunRecord) -> None:
    result = record.results[0].model_copy(update={"method": "bootstrap, test sampling only"})
    assert run_table(record.model_copy(update={"results": (result,)})).endswith(
        "95 % interval: bootstrap, test sampling only"
    )


def test_hostile_strings_keep_every_table_whole(record: RunRecord) -> None:
    part = Result(metric=HOSTILE, value=1.0, n=1, ci95=(0.0, 2.0), method=HOSTILE)
    result = part.model_copy(update={"slices": {HOSTILE: {HOSTILE: part, "plain": part}}})
    task = record.task.model_copy(update={"name": HOSTILE, "split": HOSTILE, "notes": (HOSTILE,)})
    model = record.model.model_copy(update={"name": HOSTILE})
    text = run_table(
        record.model_copy(update={"task": task, "model": model, "results": (result,), "controls": {HOSTILE: (result,)}})
    )
    assert not set(text) & set("\r\t\x1b‮")
    main, slices = tables(text)
    assert len(main) == 1 and len(slices) == 2
    assert main[0]["value"] == "1.00" and slices[1]["n"] == "1"


def test_values_that_look_like_other_types_stay_as_they_are(record: RunRecord) -> None:
    names = ["False", "True", "None", "007", "1e5", "2.0"]
    part = Result(metric="accuracy", value=1.0, n=1)
    result = part.model_copy(update={"slices": {"kind": dict.fromkeys(names, part)}})
    _, slices = tables(run_table(record.model_copy(update={"results": (result,)})))
    assert [row["kind"] for row in slices] == names


@given(st.text(max_size=40))
def test_a_cell_is_one_printable_line_without_bare_pipes(text: str) -> None:
    shown = cell(text)
    assert shown.isprintable() and not re.search(r"(?<!\\)\|", shown)
    assert shown == text or not text.isprintable() or "|" in text
    shown.encode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (50.0, "50.00"),
        (100 * 0.57, "57.00"),
        (49.9976, "49.998"),
        (50.0026, "50.003"),
        (99.996, "99.996"),
        (0.001, "0.001"),
        (58.325, "58.33"),
        (58.5, "58.50"),
        (99.999999, "99.999999"),
        (0.0, "0.00"),
        (100.0, "100.00"),
        (1234.5, "1234.50"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(0, 100))
def test_a_whole_number_is_exact(value: float) -> None:
    shown = Decimal(number(value))
    assert abs(shown - Decimal(value)) <= Decimal("0.0051")
    if shown == shown.to_integral_value():
        assert abs(shown - Decimal(value)) < Decimal("1e-9")


def test_score_table(record: RunRecord) -> None:
    coverage = Coverage(expected=4000, scored=4000, errors=1)
    text = score_table("nlvr2", "dev", record.results, ["partial file"], coverage)
    assert text.splitlines()[:3] == [
        "nlvr2 dev | real data",
        "note: partial file",
        "coverage: 1 errors of 4,000 expected examples",
    ]
    main, kinds = tables(text)
    assert main[0] == {"metric": "accuracy", "value": "58.33", "95 % interval": "[56.75, 59.90]", "n": "4,000"}
    assert [row["kind"] for row in kinds] == ["count", "spatial"]
    assert text.endswith("test sampling only")
    assert score_table("nlvr2", "dev", []) == "nlvr2 dev | real data\n\nno results"


def test_answers_that_could_not_be_read_are_no_errors(record: RunRecord) -> None:
    coverage = Coverage(expected=4000, scored=4000, unparsed=3)
    said = heading(record.model_copy(update={"coverage": coverage}))
    assert "unparsed: 3 of 4,000 answers could not be read" in said and "errors" not in said


def test_models_of_one_name_keep_a_row_each(record: RunRecord) -> None:
    def run(path: str, value: float) -> RunRecord:
        return record.model_copy(
            update={
                "spec": record.spec.model_copy(update={"model": path}),
                "model": record.model.model_copy(update={"name": f"hf:{path.rpartition('/')[2]}", "size": "hf"}),
                "task": record.task.model_copy(update={"main_metric": "accuracy"}),
                "results": (Result(metric="accuracy", value=value, n=4),),
            }
        )

    board = scoreboard([run("hf:m/clip", 10.0), run("hf:o/clip", 20.0), run("hf:m/vilt", 30.0)])
    rows = {row["model"]: row["nlvr2 test-p accuracy"] for row in tables(board)[0]}
    assert rows == {"hf:m/clip-hf": "10.00 -", "hf:o/clip-hf": "20.00 -", "hf:vilt-hf": "30.00 -"}
    assert "hf:o/clip-hf on nlvr2: trained from scratch" in board


@pytest.mark.parametrize(("unseen", "named"), [(62.0, False), (60.0, True), (50.0, True)])
def test_where_lower_is_better_a_part_must_lie_below(unseen: float, named: bool, record: RunRecord) -> None:
    (accuracy, other), part = (
        record.results,
        Result(metric="accuracy", value=58.0, n=400, ci95=(55.0, 61.0), higher_is_better=False),
    )
    lower = accuracy.model_copy(update={"higher_is_better": False, "slices": {"kind": {"count": part}}})
    update = {"results": (lower, other), "slice_majorities": {"kind": {"count": unseen}}, "controls": {}}
    text = run_table(record.model_copy(update=update))
    assert ("not significantly above the image-blind baseline" in text) is named
