"""Commands that read records, over damaged, odd and hostile ones: named or greyed with the reason, no traceback."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

Call = Callable[..., Any]
Change = Callable[[Path], None]
Values = dict[str, Any]
Edit = Callable[..., None]

HOSTILE = "=a|b<script>alert(1)</script>\u202eevil\u202c😀" + "x" * 300 + "\n\x1b[31m&$_#{}%~^\\`*[l](u)\"'"
FORMS = ("md", "html", "csv", "latex", "json")


@pytest.fixture
def runs(fake_run: Path, tmp_path: Path, edit_record: Edit) -> Path:
    """A folder with the good run and, for a test to spoil, a copy of it under another fingerprint."""
    folder = tmp_path / "runs"
    shutil.copytree(fake_run, folder / "good")
    shutil.copytree(fake_run, folder / "bad")
    edit_record(folder / "bad", lambda values: values.update(fingerprint="f" * 16))
    return folder


def written(name: str, content: bytes) -> Change:
    def change(run: Path) -> None:
        (run / name).write_bytes(content)

    return change


def cut(name: str) -> Change:
    return lambda run: written(name, (run / name).read_bytes()[:400])(run)


def folder_at(name: str) -> Change:
    def change(run: Path) -> None:
        (run / name).unlink()
        (run / name).mkdir()

    return change


def endless_link_at(name: str) -> Change:
    def change(run: Path) -> None:
        (run / name).unlink()
        (run / name).symlink_to(name)

    return change


def edited(change: Callable[[Values], object]) -> Change:
    """The change to the record, without a new seal."""

    def edit(run: Path) -> None:
        values = json.loads((run / "run.json").read_text())
        change(values)
        (run / "run.json").write_text(json.dumps(values))

    return edit


UNREADABLE = {
    "truncated": (cut("run.json"), "is corrupt"),
    "empty": (written("run.json", b""), "is corrupt"),
    "not text": (written("run.json", b"\xff\xfe\x00"), "is corrupt"),
    "a list": (written("run.json", b"[1, 2]"), "holds no JSON object"),
    "another object": (written("run.json", b'{"a": 1}'), "schema_version None"),
    "nested without end": (written("run.json", b"[" * 100_000), "is corrupt"),
    "a field of another kind": (edited(lambda values: values.update(results=3)), "is corrupt"),
    "older": (edited(lambda values: values.update(schema_version=0)), "schema_version 0 where this vlbench reads"),
    "newer": (edited(lambda values: values.update(schema_version=99, more={})), "schema_version 99"),
    "edited": (edited(lambda values: values["results"][0].update(value=99.9)), "edited or damaged"),
    "a folder": (folder_at("run.json"), "is corrupt"),
    "a link to itself": (endless_link_at("run.json"), "is corrupt"),
}


@pytest.mark.parametrize("fault", UNREADABLE)
def test_a_record_that_cannot_be_read_is_named(vlbench: Call, runs: Path, tmp_path: Path, fault: str) -> None:
    change, says = UNREADABLE[fault]
    baseline = tmp_path / "baseline.json"
    assert vlbench("gate", runs / "good", "--baseline", baseline, "--update-baseline", "--reason", "x").code == 0
    change(runs / "bad")
    bad, named = runs / "bad", str(runs / "bad" / "run.json")
    alone = [
        ("show", bad), ("report", bad), ("report", runs / "good", bad), ("compare", runs / "good", bad),
        ("submit", bad, "--to", "nlvr2"),
        *(("export", bad, "--to", form) for form in ("csv", "lm-eval", "hf-model-index")),
    ]  # fmt: skip
    for command in alone:
        done = vlbench(*command)
        assert (done.code, done.out) == (5, ""), command
        assert one_sentence(done.err) and named in done.err and says in done.err

    for form in FORMS:
        shown = vlbench("leaderboard", runs, "--format", form)
        notes = shown.err if form == "csv" else shown.out
        assert shown.code == 0 and "fake" in shown.out and "left out: " in notes, form
    listed = vlbench("list", "runs", "--output-path", runs)
    assert listed.code == 0 and str(runs / "good") in listed.out and f"left out: {named}" in listed.err
    judged = vlbench("gate", runs, "--baseline", baseline)
    assert f"left out: {named}" in judged.err and "missing" not in judged.out
    lost = vlbench("gate", bad, "--baseline", baseline)
    assert lost.code == 4 and "missing" in lost.out
    before = baseline.read_bytes()
    refused = vlbench("gate", bad, "--baseline", baseline, "--update-baseline", "--reason", "y")
    assert refused.code == 5 and baseline.read_bytes() == before


def test_a_folder_without_runs(vlbench: Call, tmp_path: Path) -> None:
    for command in (
        ("leaderboard",), ("compare", tmp_path), ("gate", "--baseline", tmp_path / "b.json"), ("show",), ("report",),
        ("export", "--to", "csv"), ("submit", "--to", "nlvr2"),
    ):  # fmt: skip
        done = vlbench(command[0], tmp_path, *command[1:])
        assert (done.code, done.out) == (2, ""), command
        assert one_sentence(done.err) and str(tmp_path) in done.err
    assert vlbench("list", "runs", "--output-path", tmp_path).out == "no runs\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda run: (run / "samples.parquet").unlink(), cut("samples.parquet"), written("samples.parquet", b""),
        folder_at("samples.parquet"), endless_link_at("samples.parquet"),
    ],
    ids=["missing", "truncated", "empty", "a folder", "a link to itself"],
)  # fmt: skip
def test_samples_that_cannot_be_read(vlbench: Call, runs: Path, change: Change) -> None:
    change(runs / "bad")
    for command in (("show", runs / "bad"), ("compare", runs / "good", runs / "bad")):
        done = vlbench(*command)
        assert (done.code, done.out) == (5, ""), command
        assert one_sentence(done.err) and str(runs / "bad" / "samples.parquet") in done.err
    assert vlbench("report", runs / "bad").code in (0, 5)
    assert vlbench("leaderboard", runs).code == 0  # which needs none


def unfinite(number: float) -> Callable[[Values], None]:
    def change(values: Values) -> None:
        for result in values["results"]:
            result.update(value=number, stderr=number, ci95=[number, number])
        values["efficiency"].update(examples_per_second=number, peak_memory_mib=number, latency_ms={"p50": number})
        values["majority"] = number

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (unfinite(float("nan")), "its value is not a number"),
        (unfinite(float("inf")), "its value is not a number"),
        (lambda values: values.update(results=[]), "no scores: the answers of its split are not public"),
        (lambda values: values.update(results=values["results"][1:]), "its record has no accuracy"),
        (lambda values: values.update(status="failed", error=HOSTILE), "failed: =a"),
        (lambda values: values["task"].update(version=99), "outdated: task version 99"),
        (lambda values: values["tool"].update(version="0.0.1"), "outdated: made by vlbench 0.0.1"),
    ],
    ids=["nan", "infinite", "no metrics", "no main metric", "failed", "task version", "tool version"],
)
def test_figures_that_do_not_count_are_grey_with_the_reason(
    vlbench: Call, runs: Path, edit_record: Edit, change: Callable[[Values], object], why: str
) -> None:
    edit_record(runs / "bad", change)
    for costs in ("main", "main,latency,memory,parameters"):
        for form in FORMS:
            done = vlbench("leaderboard", runs, "--columns", costs, "--format", form)
            assert done.code == 0, done.err
            assert why.split("=")[0].rstrip() in done.out.replace("\\_", "_"), form
    rows = json.loads(vlbench("leaderboard", runs, "--format", "json").out)["rows"]
    ranks = {bool(row["doubt"]): row["rank"] for row in rows}
    assert ranks == {False: 1, True: None}
    for command in (("show",), ("report",)):
        assert vlbench(*command, runs / "bad").code == 0
    for command in (("compare", runs / "good"), ("export", "--to", "lm-eval"), ("export", "--to", "hf-model-index")):
        done = vlbench(command[0], runs / "bad", *command[1:])
        assert done.code in (0, 2, 10) and (done.code == 0 or one_sentence(done.err))
        assert not re.search(r"\b(nan|inf|infinity)\b", done.out.lower())


def hostile(values: Values) -> None:
    """Hostile text wherever a record holds any."""
    for part, names in {
        "model": ("name",), "spec": ("model", "task", "split"), "task": ("name", "split", "main_metric"),
        "environment": ("cpu",), "tool": ("version", "commit"), "train": ("train_split",),
    }.items():  # fmt: skip
        values[part].update(dict.fromkeys(names, HOSTILE))
    first = values["results"][0]
    part = {"metric": HOSTILE, "value": 1.0, "n": 3}
    first.update(metric=HOSTILE, method=HOSTILE, slices={HOSTILE: {HOSTILE: part}})
    values["task"]["notes"] = [HOSTILE]
    values.update(
        fingerprint=HOSTILE, started=HOSTILE, controls={HOSTILE: values["results"]},
        slice_majorities={HOSTILE: {HOSTILE: 2.0}},
    )  # fmt: skip


@pytest.fixture
def evil(runs: Path, edit_record: Edit) -> Path:
    edit_record(runs / "bad", hostile)
    return runs / "bad"


def test_markdown_and_terminal(vlbench: Call, evil: Path, tmp_path: Path) -> None:
    baseline, summary = tmp_path / "b.json", tmp_path / "s.md"
    assert vlbench("gate", evil, "--baseline", baseline, "--update-baseline", "--reason", HOSTILE).code == 0
    for command in (
        ("leaderboard", evil.parent), ("gate", evil, "--baseline", baseline, "--summary", summary),
        ("compare", evil, evil), ("show", evil), ("list", "runs", "--output-path", evil.parent),
    ):  # fmt: skip
        done = vlbench(*command)
        text = done.out + done.err
        assert done.code in (0, 2, 4, 10) and "Traceback" not in text, (command, text)
        assert "\x1b" not in text and "\u202e" not in text
    for text in (vlbench("leaderboard", evil.parent).out, summary.read_text()):
        assert "<script" not in text
        assert all(len(set(columns)) == 1 for columns in markdown_tables(text))


def test_html(vlbench: Call, evil: Path, tmp_path: Path) -> None:
    """The same elements run scripts as on the pages of a harmless run, and no attribute does."""

    def pages(run: Path) -> list[str]:
        board = vlbench("leaderboard", run, "--format", "html", "--pareto", "latency")
        written = vlbench("report", run, "--html", tmp_path / "p.html")
        assert (board.code, written.code) == (0, 0)
        return [board.out, (tmp_path / "p.html").read_text()]

    for text, harmless in zip(pages(evil), pages(evil.parent / "good"), strict=True):
        seen, expected = Elements(text), Elements(harmless)
        assert expected.names.count("script") == seen.names.count("script") > 0
        assert not seen.handlers and "<script>alert" not in text


def test_csv_json_latex_and_yaml(vlbench: Call, evil: Path) -> None:
    for command in (("leaderboard", evil.parent, "--format", "csv"), ("export", evil, "--to", "csv")):
        head, *rows = csv.reader(io.StringIO(vlbench(*command).out))
        assert rows and {len(row) for row in rows} == {len(head)}
        assert not [cell for row in rows for cell in row if cell[:1] in tuple("=+@") or "\n" in cell or "\x1b" in cell]
    latex = vlbench("leaderboard", evil.parent, "--format", "latex").out
    table = "".join(line for line in latex.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[_#%]|<script|alert\(1\)</", table)
    assert json.loads(vlbench("leaderboard", evil.parent, "--format", "json").out)["rows"]
    found = json.loads(vlbench("export", evil, "--to", "lm-eval").out)
    assert list(found["results"]) == [f"vlbench_world_{HOSTILE}"]
    card = vlbench("export", evil, "--to", "hf-model-index").out
    (index,) = yaml.safe_load(card.strip().strip("-"))["model-index"]
    assert index["name"].startswith(HOSTILE)


def test_junit(vlbench: Call, evil: Path, tmp_path: Path) -> None:
    baseline, junit = tmp_path / "b.json", tmp_path / "j.xml"
    assert vlbench("gate", evil, "--baseline", baseline, "--update-baseline", "--reason", "x").code == 0
    assert vlbench("gate", evil, "--baseline", baseline, "--junit", junit).code == 4
    (case,) = ElementTree.fromstring(junit.read_text()).iter("testcase")
    assert "<script>alert(1)</script>" in case.attrib["name"]


class Elements(HTMLParser):
    """The names of a page's elements, and its attributes that run something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def markdown_tables(text: str) -> Iterator[list[int]]:
    """Per table, the columns of its lines."""
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        if lines:
            yield [len(re.findall(r"(?<!\\)\|", line)) for line in lines]


def one_sentence(text: str) -> bool:
    """One line from vlbench, nothing of Python."""
    return text.startswith("vlbench: ") and text.count("\n") == 1 and "Traceback" not in text and "\x1b" not in text
