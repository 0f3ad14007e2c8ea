from __future__ import annotations

import csv
import html.parser
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlbench import __version__
from vlbench.core.errors import VlbenchError
from vlbench.core.record import Coverage, RunRecord
from vlbench.records.collect import collect
from vlbench.records.folder import RunFolder, read_run
from vlbench.report.tables.aggregates import pareto
from vlbench.report.tables.inject import injected
from vlbench.report.tables.leaderboard import Board, Choice, board
from vlbench.report.tables.leaderboard_text import FORMATS, render

HOSTILE = [
    "a|b",
    "<script>alert(1)</script>",
    "🦊🦊",
    "x" * 300,
    "שלום\u202eabc",
    "bell\x07\x1b[31m\n",
    "=1+1",
    "[a](b)",
]
GOOD, FAIR, POOR = [1.0] * 900 + [0.0] * 100, [1.0] * 890 + [0.0] * 110, [1.0] * 500 + [0.0] * 500
PLAIN = Choice()


def made(folder: Path, choice: Choice = PLAIN, versions: dict[str, int] | None = None) -> Board:
    found = collect([folder])
    return board(found.runs, found.faults, choice, __version__, versions or {"nlvr2": 1})


def cells(text: str) -> list[list[str]]:
    """The rows of the first Markdown table, read by rules of its own."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[:1] + lines[2:]]


def change(run: Path, **changed: Any) -> None:
    RunFolder(run).write_record(read_run(run).model_copy(update=changed))


def test_best_in_bold_and_ties_marked(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run("a", GOOD), make_run("b", FAIR, model="vilt"), make_run("c", POOR, model="soho")
    text = render(made(tmp_path), "md")
    rows = cells(text)
    assert rows[0] == ["model", "nlvr2 test-p accuracy"]
    assert [row[0] for row in rows[1:]] == ["cvlp-tiny", "vilt-tiny", "soho-tiny"]
    assert rows[1][1] == "**90.00 ± 2.03**"  # Clopper and Pearson's interval of 900 out of 1,000 starts at 87.97
    assert re.fullmatch(r"89\.00 ± \d\.\d\d ≈", rows[2][1])
    assert re.fullmatch(r"50\.00 ± 3\.\d\d", rows[3][1])
    assert text.startswith("**built-in world (plain), finetune on train**")


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("task", {"split": "dev"}), ("task", {"version": 2}), ("task", {"source": "real"}),
        ("task", {"manifest_sha256": "other"}), ("spec", {"mode": "eval"}), ("spec", {"domain": "textured"}),
        ("spec", {"rerank_k": 8}), ("spec", {"num_fewshot": 2}),
    ],
)  # fmt: skip
def test_what_differs_never_shares_a_column(
    make_run: Callable[..., Path], tmp_path: Path, field: str, changed: dict[str, object]
) -> None:
    make_run("a", GOOD)
    b = make_run("b", FAIR, model="vilt")
    change(b, **{field: getattr(read_run(b), field).model_copy(update=changed)})
    for table in made(tmp_path, versions={"none": 1}).tables:
        for heading in table.headings:
            assert sum(heading in row.entries for row in table.rows) == 1


def test_doubtful_records_are_grey_with_the_reason_and_never_best(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    make_run("a", POOR)
    runs = {name: make_run(name, GOOD, model=name) for name in ("limited", "failed", "older", "unread")}
    task = read_run(runs["limited"]).task
    change(runs["limited"], task=task.model_copy(update={"limit": 100.0, "n_total": 4000}))
    change(runs["failed"], status="failed", error="out | of\nmemory")
    change(runs["unread"], coverage=Coverage(expected=1000, scored=1000, errors=7))
    change(runs["older"], tool=read_run(runs["older"]).tool.model_copy(update={"version": "0.0.1"}))
    text = render(made(tmp_path), "md")
    assert "**50.00" in text and "**90.00" not in text
    assert "(limited-tiny on nlvr2 test-p: limited: 1,000 of 4,000 examples)" in text
    assert "(unread-tiny on nlvr2 test-p: 7 of 1,000 examples without an answer)" in text
    assert "(failed-tiny on nlvr2 test-p: failed: out \\| of\\nmemory)" in text
    assert f"(older-tiny on nlvr2 test-p: outdated: made by vlbench 0.0.1, this is {__version__})" in text
    assert "outdated: task version 1, now 3" in render(made(tmp_path, versions={"nlvr2": 3}), "md")


def test_a_sound_rerun_replaces_one_with_errors(make_run: Callable[..., Path], tmp_path: Path) -> None:
    """They have one fingerprint; which of them is newer does not count."""
    sound, fingerprint = make_run("sound", FAIR), "0" * 16
    unread = make_run("unread", FAIR, coverage=Coverage(expected=1000, scored=1000, errors=7))
    change(sound, fingerprint=fingerprint, started="2026-01-01T00:00:00Z")
    change(unread, fingerprint=fingerprint, started="2026-01-02T00:00:00Z")
    (table,) = made(tmp_path).tables
    ((entry,),) = (row.entries.values() for row in table.rows)
    assert entry.rank == 1 and not entry.aggregate.doubt


def test_costs_do_not_decide_the_order(make_run: Callable[..., Path], tmp_path: Path) -> None:
    """The best is slowest, the worst fastest, and a fourth model is the second of both."""
    for model, right, ms in (("best", 900, 40.0), ("good", 800, 30.0), ("fair", 700, 20.0), ("poor", 600, 10.0)):
        run = make_run(model, [1.0] * right + [0.0] * (1000 - right), model=model)
        efficiency = read_run(run).efficiency
        assert efficiency
        change(run, efficiency=efficiency.model_copy(update={"latency_ms": {"p50": ms}}))
    best_first = ["best-tiny", "good-tiny", "fair-tiny", "poor-tiny"]
    for sort, order in (("rank", best_first), ("nlvr2", best_first), ("latency", best_first[::-1])):
        (table,) = made(tmp_path, Choice(columns=("main", "latency"), sort=sort)).tables
        assert [row.name for row in table.rows] == order, sort


def test_costs_of_batches_of_different_sizes_are_told(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for model, size in (("one", 1), ("many", 256), ("unknown", None)):
        run = make_run(model, GOOD, model=model)
        change(run, spec=read_run(run).spec.model_copy(update={"eval_batch_size": size}))
    said = "of batches of different sizes do not compare: 1, 256 examples; run all with one --eval-batch-size"
    assert made(tmp_path, Choice(pareto="latency")).notes == (f"latency {said}",)
    assert made(tmp_path, Choice(columns=("main", "latency", "memory"))).notes == (f"latency and memory {said}",)
    assert made(tmp_path, Choice(columns=("main", "parameters", "examples/s"))).notes == ()
    assert made(tmp_path / "runs" / "one", Choice(pareto="latency")).notes == ()


def test_latex_says_which_packages_its_marks_need(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run("a", GOOD)
    first = render(made(tmp_path), "latex").splitlines()[0]
    assert first == "% in the preamble: \\usepackage{xcolor,amssymb}"
    assert "usepackage" not in render(made(tmp_path), "md") + render(made(tmp_path), "html")


def test_seeds_are_one_row(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for seed, right in enumerate((500, 510, 520)):
        make_run(f"a{seed}", [1.0] * right + [0.0] * (1000 - right), seed=seed)
    (row,) = made(tmp_path).tables[0].rows
    (entry,) = row.entries.values()
    assert (entry.aggregate.value, entry.aggregate.spread, entry.aggregate.seeds) == (
        pytest.approx(51),
        pytest.approx(1),
        (0, 1, 2),
    )
    # Student's t with 2 degrees of freedom over the seeds (4.303), and the test set's own, 3.1 or so.
    assert entry.aggregate.reach == pytest.approx(((4.303 / 3**0.5) ** 2 + 3.1**2) ** 0.5, abs=0.1)


def test_ranks_between_tasks_columns_and_order(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for task, scores in {"nlvr2": (GOOD, POOR), "nlvr": (POOR, GOOD)}.items():
        for model, of in zip(("cvlp", "vilt"), scores, strict=True):
            run = make_run(f"{task}-{model}", of, model=model)
            change(run, task=read_run(run).task.model_copy(update={"name": task}))
    rows = cells(render(made(tmp_path), "md"))
    assert rows[0][-1] == "ranks" and [row[-1] for row in rows[1:]] == ["2 / 1", "1 / 2"]
    rows = cells(render(made(tmp_path, Choice(sort="nlvr", columns=("main", "parameters"))), "md"))
    assert [row[0] for row in rows[1:]] == ["vilt-tiny", "cvlp-tiny"]
    assert rows[0][2] == "nlvr test-p parameters (M)"
    assert len(made(tmp_path, Choice(tasks=("nlvr",))).tables[0].headings) == 1
    for choice, message in (
        (Choice(sort="acuracy"), "unknown order 'acuracy': did you mean 'accuracy'"),
        (Choice(tasks=("gqa",)), "no record of gqa: there are records of nlvr, nlvr2"),
        (Choice(tasks=("nlvrr",)), "unknown task 'nlvrr': did you mean 'nlvr' or 'nlvr2'"),
        (Choice(columns=("rsum",)), "unknown column 'rsum'"),
        (Choice(pareto="height"), "unknown cost 'height'"),
    ):
        with pytest.raises(VlbenchError, match=message):
            made(tmp_path, choice)


def test_the_front(make_run: Callable[..., Path], tmp_path: Path, record: RunRecord) -> None:
    assert record.efficiency
    for name, scores, latency in (("slow", GOOD, 9.0), ("quick", FAIR, 1.0), ("poor", POOR, 5.0)):
        efficiency = record.efficiency.model_copy(update={"latency_ms": {"p50": latency}})
        make_run(name, scores, model=name, efficiency=efficiency)
    found = made(tmp_path, Choice(pareto="latency"))
    fronts = {row.name: any(entry.front for entry in row.entries.values()) for row in found.tables[0].rows}
    assert fronts == {"slow-tiny": True, "quick-tiny": True, "poor-tiny": False}
    assert "◆" in render(found, "md")


class Page(html.parser.HTMLParser):
    """The elements and texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.elements.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


@pytest.mark.parametrize("form", FORMATS)
def test_hostile_names_stay_in_their_cell(
    make_run: Callable[..., Path], edit_record: Callable[..., None], tmp_path: Path, form: str
) -> None:
    for place, name in enumerate(HOSTILE):
        make_run(f"r{place}", GOOD, model=name)
    run = make_run("nan", POOR)
    edit_record(run, lambda values: values["results"][0].update(value=float("nan")))
    text = render(made(tmp_path), form)
    assert not any(char in text for char in "\x07\x1b\u202e")
    assert text == render(made(tmp_path), form)
    if form == "md":
        assert all(len(row) == 2 for row in cells(text)) and len(cells(text)) == 10
        assert "<script" not in text and "](b)" in text and "\\[a" in text
        assert "its value is not a number" in text and "x" * 61 not in text
    elif form == "html":
        page = Page()
        page.feed(text)
        assert page.elements <= {"h2", "table", "thead", "tbody", "tr", "th", "td", "strong", "span", "p", "br"}
        assert "<script>alert(1)</script>-tiny" in page.texts
    elif form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert len(rows) == 9 and {row["task"] for row in rows} == {"nlvr2"}
        assert "'=1+1-tiny" in {row["model"] for row in rows}
    elif form == "json":
        rows = json.loads(text)["rows"]
        assert {row["value"] for row in rows} == {90.0, None} and "x" * 300 + "-tiny" in {row["model"] for row in rows}
    else:
        assert text.count(" & ") == 10 and "\\textless{}script" in text


def test_records_that_cannot_be_read_are_named(make_run: Callable[..., Path], tmp_path: Path) -> None:
    whole, torn, older = make_run("whole", GOOD), make_run("torn", GOOD), make_run("older", GOOD)
    (torn / "run.json").write_bytes((torn / "run.json").read_bytes()[:200])
    (older / "run.json").write_text('{"schema_version": 0}')
    text = render(made(tmp_path), "md")
    assert "torn/run.json is corrupt" in text and "schema\\_version 0" in text.replace("schema_", "schema\\_")
    assert cells(text)[1][0] == "cvlp-tiny" and whole.is_dir()
    (tmp_path / "empty").mkdir()
    for path, message in ((tmp_path / "empty", "no runs there"), (tmp_path / "absent", "is not there")):
        with pytest.raises(VlbenchError, match=message):
            collect([path])
    copy = tmp_path / "records"
    copy.mkdir()
    (copy / "nlvr2.json").write_bytes((whole / "run.json").read_bytes())
    assert len(collect([copy]).runs) == 1


def test_metrics_that_some_lack(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run("a", GOOD)
    b = make_run("b", POOR, model="vilt")
    result = read_run(b).results[0]
    change(b, results=(result, result.model_copy(update={"metric": "consistency"})))
    rows = cells(render(made(tmp_path, Choice(columns=("accuracy", "consistency"))), "md"))
    assert {row[0]: row[2] for row in rows[1:]}["cvlp-tiny"] == "-"


def test_names_with_commas(make_run: Callable[..., Path], tmp_path: Path, vlbench: Callable[..., Any]) -> None:
    make_run("a", GOOD)
    assert vlbench("leaderboard", tmp_path / "runs", "--task", "nlvr2", "--columns", "main, parameters").code == 0
    for flag, text in (("--columns", "main,main"), ("--task", "nlvr2,")):
        done = vlbench("leaderboard", tmp_path / "runs", flag, text)
        assert done.code == 2 and flag in done.err


def test_into_a_page(make_run: Callable[..., Path], tmp_path: Path, vlbench: Callable[..., Any]) -> None:
    make_run("a", GOOD)
    page = tmp_path / "README.md"
    page.write_text("# Mine\n<!-- vlbench:begin leaderboard -->\nold\n<!-- vlbench:end -->\nrest\n")
    arguments = ("leaderboard", tmp_path / "runs", "--inject", page)
    assert vlbench(*arguments, "--check").code == 11 and "old" in page.read_text()
    assert vlbench(*arguments).code == 0
    text = page.read_text()
    assert text.startswith("# Mine\n<!-- vlbench:begin leaderboard -->\n\n**built-in") and text.endswith("-->\nrest\n")
    assert vlbench(*arguments, "--check").code == 0 and page.read_text() == text
    make_run("b", POOR, model="vilt")
    assert vlbench(*arguments, "--check").code == 11
    out = tmp_path / "board.csv"
    assert vlbench("leaderboard", tmp_path / "runs", "--format", "csv", "--output", out).code == 0
    assert vlbench("leaderboard", tmp_path / "runs", "--format", "csv", "--output", out, "--check").code == 0
    assert vlbench("leaderboard", tmp_path / "runs", "--check").code == 2


@pytest.mark.parametrize("page", ["none", "<!-- vlbench:begin -->\n", "<!-- vlbench:end --><!-- vlbench:begin -->\n"])
def test_pages_without_marks_are_refused(page: str) -> None:
    with pytest.raises(VlbenchError, match="expected one of each"):
        injected(page, "table", "README.md")


def test_where_nothing_can_be_read_nothing_is_written(
    make_run: Callable[..., Path], tmp_path: Path, vlbench: Callable[..., Any]
) -> None:
    run, out = make_run("a", GOOD), tmp_path / "board.md"
    assert vlbench("leaderboard", tmp_path / "runs", "--output", out).code == 0
    before = out.read_text()
    (run / "run.json").write_text("{")
    done = vlbench("leaderboard", tmp_path / "runs", "--output", out)
    assert (done.code, out.read_text()) == (5, before)
    assert "none of 1 records can be read" in done.err and "a/run.json is corrupt" in done.err


def test_the_file_says_the_format(make_run: Callable[..., Path], tmp_path: Path, vlbench: Callable[..., Any]) -> None:
    make_run("a", GOOD)
    marks = "<!-- vlbench:begin -->\n<!-- vlbench:end -->\n"
    page, table, plain = tmp_path / "in.html", tmp_path / "board.CSV", tmp_path / "notes.txt"
    for file in (page, plain):
        file.write_text(marks)
    for flag, file in (("--inject", page), ("--inject", plain), ("--output", table)):
        assert vlbench("leaderboard", tmp_path / "runs", flag, file).code == 0
    assert "<table" in page.read_text() and "|" not in page.read_text()
    assert "| cvlp-tiny |" in plain.read_text()
    assert table.read_text().startswith("data,protocol,task")
    assert vlbench("leaderboard", tmp_path / "runs", "--format", "md", "--output", table).code == 0
    assert "| cvlp-tiny |" in table.read_text()


def test_a_wrong_format_is_said_in_plain_words(tmp_path: Path, vlbench: Callable[..., Any]) -> None:
    done = vlbench("leaderboard", tmp_path, "--format", "xls")
    assert done.code == 2 and "--format': 'xls' is not one of" in done.err


def told(run: Path, task: str, lr: float) -> None:
    """Make it a run on that task by a recipe of that learning rate."""
    record = read_run(run)
    assert record.train is not None
    train = record.train.model_copy(update={"recipe": record.train.recipe.model_copy(update={"lr": lr})})
    change(run, train=train, task=record.task.model_copy(update={"name": task}))


def test_one_recipe_has_one_row_over_all_tasks(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for task in ("nlvr2", "nlvr"):
        for lr in (0.1, 0.2):
            told(make_run(f"{task}{lr}", GOOD), task, lr)
    (table,) = made(tmp_path).tables
    assert sorted(row.name for row in table.rows) == ["cvlp-tiny (lr 0.1)", "cvlp-tiny (lr 0.2)"]
    assert {len(row.entries) for row in table.rows} == {2}


def test_a_run_that_failed_hides_no_recipe(make_run: Callable[..., Path], tmp_path: Path) -> None:
    told(good := make_run("good", GOOD), "nlvr2", 0.1)
    train = read_run(good).train
    assert train is not None
    failed = make_run("failed", POOR)
    spec = read_run(failed).spec
    given = {"train_split": train.train_split, "train": spec.train.model_copy(update={"lr": 0.2})}
    change(failed, status="failed", train=None, spec=spec.model_copy(update=given))
    (table,) = made(tmp_path).tables
    assert [row.name for row in table.rows] == ["cvlp-tiny", "cvlp-tiny (lr 0.2)"]


def test_a_limit_that_leaves_nothing_out_is_no_doubt(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run("a", GOOD)
    change(run, task=read_run(run).task.model_copy(update={"limit": 5000.0}))
    text = render(made(tmp_path), "md")
    assert "**90.00" in text and "limited" not in text


def test_the_score_on_the_selection_split_is_a_column_that_does_not_rank(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    """The better system by its results has the worse score on the selection split; a third selected on nothing."""
    for name, scores, selection in (("cvlp", GOOD, 70.5), ("vilt", POOR, 90.0), ("soho", FAIR, None)):
        run = make_run(name, scores, model=name)
        train = read_run(run).train
        assert train is not None
        change(run, train=train.model_copy(update={"selection": selection}))
    rows = cells(render(made(tmp_path, Choice(columns=("main", "selection"))), "md"))
    assert rows[0] == ["model", "nlvr2 test-p accuracy", "nlvr2 test-p selection"]
    assert [(row[0], row[2].strip("*")) for row in rows[1:]] == [
        ("cvlp-tiny", "70.50"), ("soho-tiny", "-"), ("vilt-tiny", "90.00"),
    ]  # fmt: skip


def test_runs_that_do_not_count_change_neither_names_nor_ranks_of_those_that_do(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    for task in ("nlvr2", "nlvr"):
        told(make_run(f"good-{task}", GOOD), task, 0.1)
        told(make_run(f"fair-{task}", FAIR, model="vilt"), task, 0.1)
    (alone,) = made(tmp_path).tables
    limited, failed, older = (make_run(name, GOOD) for name in ("limited", "failed", "older"))
    for run in (limited, failed, older):
        told(run, "nlvr2", 0.1)
    task = read_run(limited).task
    change(limited, task=task.model_copy(update={"limit": 100.0, "n_total": 4000}))
    change(limited, spec=read_run(limited).spec.model_copy(update={"limit": 100.0}))
    change(failed, status="failed", error="no memory")
    change(older, tool=read_run(older).tool.model_copy(update={"version": "0.0.1"}))
    (beside,) = made(tmp_path).tables
    assert [row.name for row in alone.rows] == ["cvlp-tiny", "vilt-tiny"]
    assert beside.rows[:2] == alone.rows, "the same rows, ranks and ties"
    limit, old = f"limit 100, vlbench {__version__}", "limit none, vlbench 0.0.1"
    in_doubt = {f"cvlp-tiny ({limit})", "cvlp-tiny (failed)", f"cvlp-tiny ({old})"}
    assert {row.name for row in beside.rows[2:]} == in_doubt
    assert all(entry.aggregate.doubt for row in beside.rows[2:] for entry in row.entries.values())


def test_a_failed_run_of_the_same_settings_has_a_row_of_its_own(make_run: Callable[..., Path], tmp_path: Path) -> None:
    told(make_run("good", GOOD), "nlvr2", 0.1)
    for name, seed in (("one", 1), ("two", 2)):
        told(failed := make_run(name, POOR, seed=seed), "nlvr", 0.1)
        change(failed, status="failed", error="no memory")
    (table,) = made(tmp_path).tables
    assert [row.name for row in table.rows] == ["cvlp-tiny", "cvlp-tiny (failed)", "cvlp-tiny (failed), seed 2"]
    assert not table.ranked


def test_where_lower_is_better_the_lowest_is_first(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for name, scores, model in (("a", GOOD, "cvlp"), ("b", FAIR, "vilt"), ("c", POOR, "soho")):
        run = make_run(name, scores, model=model)
        results = tuple(one.model_copy(update={"higher_is_better": False}) for one in read_run(run).results)
        change(run, results=results)
    (table,) = made(tmp_path, Choice(pareto="parameters")).tables
    assert [row.name for row in table.rows] == ["soho-tiny", "vilt-tiny", "cvlp-tiny"]
    entries = [row.entries[table.headings[0]] for row in table.rows]
    assert [entry.rank for entry in entries] == [1, 2, 3] and not any(entry.tie for entry in entries)
    assert [entry.front for entry in entries] == [True, False, False]  # all have one size


def test_recipes_keep_their_rows_where_no_run_counts(make_run: Callable[..., Path], tmp_path: Path) -> None:
    """All runs are limited: each recipe has one row over both tasks, whatever the order of the fingerprints."""
    for task in ("nlvr2", "nlvr"):
        for lr, scores in ((0.1, GOOD), (0.2, POOR)):
            told(run := make_run(f"{task}{lr}", scores), task, lr)
            prints = "b" if (task == "nlvr2") == (lr == 0.1) else "a"
            change(
                run, task=read_run(run).task.model_copy(update={"n_total": 4000}), fingerprint=prints + task + str(lr)
            )
    (table,) = made(tmp_path).tables
    values = {row.name: {round(entry.aggregate.value) for entry in row.entries.values()} for row in table.rows}
    assert values == {"cvlp-tiny (lr 0.1)": {90}, "cvlp-tiny (lr 0.2)": {50}}


def test_the_front_holds_what_nothing_beats_in_both_cost_and_worth() -> None:
    points = [(3.0, 70.0), (1.0, 60.0), (2.0, 50.0), (1.0, 55.0), (4.0, 70.0), (5.0, 80.0)]
    assert pareto(points) == [(1.0, 60.0), (3.0, 70.0), (5.0, 80.0)]
