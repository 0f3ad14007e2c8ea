"""The report of a run in a real browser: read, filtered, searched and walked through by keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SHOWN = "[...document.querySelectorAll('#list > li')]"
COUNT = "document.getElementById('count').textContent"


def test_a_report_of_two_runs_is_read_and_searched(browser: Any, report: Path, two_runs: list[Path]) -> None:
    import pandas as pd

    a, b = (pd.read_parquet(run / "samples.parquet") for run in two_runs)
    both = a.merge(b, on="example_id")
    browser.open(report)
    total = len(a)
    assert browser.run(COUNT) == f"{total} of {total} examples"
    assert browser.run(f"{SHOWN}.length") == min(total, 50)
    assert browser.run("document.querySelectorAll('#list img').length") > 0
    assert browser.run("[...document.images].every((one) => one.complete && one.naturalWidth > 0)")

    wrong = browser.run(
        "JSON.parse(document.getElementById('data').textContent).rows.filter(r => r.a.score < 1).length"
    )
    browser.choose("outcome", "wrong")
    assert browser.run(COUNT).startswith(f"{wrong} of ")
    assert browser.run(f"{SHOWN}.every((one) => one.classList.contains('wrong'))")
    browser.choose("outcome", "")

    browser.choose("flip", "flipped")
    assert browser.run(COUNT).startswith(f"{(both.score_x != both.score_y).sum()} of ")
    browser.choose("flip", "")

    kind = a.tag_kind.iloc[0]
    browser.choose("tag-0", kind)
    assert browser.run(COUNT).startswith(f"{(a.tag_kind == kind).sum()} of ")
    browser.choose("tag-0", "")

    browser.choose("order", "sure")
    sure = browser.run(f"{SHOWN}.map((one) => parseFloat(one.querySelectorAll('dd')[1].textContent.split('(')[1]))")
    assert sure == sorted(sure, reverse=True)
    browser.choose("least", "100.5")
    assert browser.run(COUNT).startswith("0 of ")
    browser.run("document.querySelector('button[type=reset]').click()")
    assert browser.run(f"new Promise(done => setTimeout(() => done({COUNT}), 50))") == f"{total} of {total} examples"

    browser.choose("search", a.example_id.iloc[3])
    assert browser.run(f"{SHOWN}[0].textContent").count(a.text.iloc[3]) == 1
    assert browser.faults() == []
    assert browser.requests() == [report.resolve().as_uri()]


def test_keys_walk_open_and_search(browser: Any, report: Path) -> None:
    browser.open(report)
    at = f"{SHOWN}.indexOf(document.activeElement.closest('#list > li'))"
    browser.press("j")
    assert browser.run(at) == 0
    browser.press("j")
    browser.press("ArrowDown")
    assert browser.run(at) == 2
    browser.press("k")
    assert browser.run(at) == 1
    browser.press("Enter")
    assert browser.run("document.activeElement.getAttribute('aria-expanded')") == "true"
    opened = "document.getElementById(document.activeElement.getAttribute('aria-controls'))"
    assert browser.run(f"{opened}.checkVisibility() && {opened}.textContent.includes('best answers')")
    browser.press("Enter")
    assert browser.run(f"!{opened}.checkVisibility()")
    for _ in range(60):
        browser.press("j")
    assert browser.run(at) == 61, "walking beyond what is shown shows more"
    browser.press("/")
    assert browser.run("document.activeElement.id") == "search"
    for key in "zzj/":
        browser.press(key)
    assert browser.run("document.getElementById('search').value") == "zzj/", "keys are letters while one types"
    assert browser.run(COUNT).startswith("0 of ")
    browser.press("Escape")
    assert browser.run("document.activeElement === document.body"), "out of the box, though there is no example"
    browser.run("document.getElementById('filters').reset()")
    browser.run("new Promise(done => setTimeout(done, 50))")
    browser.press("/")
    browser.press("Escape")
    assert browser.run(at) == 0
    assert browser.faults() == []


@pytest.fixture
def two_rankings(vlbench: Any, quick: list[object]) -> list[Path]:
    """Two quick rankings of the fake model that differ in their seed."""
    made = []
    for seed in (0, 1):
        done = vlbench(*quick, "--task", "coco_retrieval", "--model", "fake", "--select-on", "none", "--seed", seed)
        assert done.code == 0, done.err
        made.append(done.run)
    return made


def test_of_two_rankings_both_answers_are_drawn(
    browser: Any, two_rankings: list[Path], vlbench: Any, tmp_path: Path
) -> None:
    page = tmp_path / "ranked.html"
    done = vlbench("report", *two_rankings, "--html", page)
    assert done.code == 0, done.err
    browser.open(page)
    browser.choose("flip", "differ")
    drawn = browser.run(
        """(() => {
          const data = JSON.parse(document.getElementById('data').textContent);
          const row = data.rows.find(({a, b, images}) => a.answer !== b.answer && a.score === b.score
            && [a, b].every(({answer}) => answer in data.images && !images.includes(answer)));
          const items = [...document.querySelectorAll('#list > li')];
          const item = items.find((one) => one.querySelector('h3 bdi').textContent === row.text);
          item.querySelector('h3 button').click();
          const figures = [...item.querySelectorAll('[id^=details] figure')];
          return {
            mark: item.querySelector('.mark').textContent,
            wanted: [['A answered with', `image ${row.a.answer}`], ['B answered with', `image ${row.b.answer}`]],
            shown: figures.map((one) => [one.querySelector('figcaption').textContent, one.querySelector('img').alt]),
          };
        })()"""
    )
    assert drawn["shown"] == drawn["wanted"]
    assert drawn["mark"] == "A ✗ wrong"
    assert browser.faults() == []


def test_hostile_texts_stay_texts(
    browser: Any, hostile_run: Path, hostile_texts: tuple[str, ...], vlbench: Any, tmp_path: Path
) -> None:
    page = tmp_path / "hostile.html"
    done = vlbench("report", hostile_run, "--html", page)
    assert done.code == 0, done.err
    browser.open(page)
    assert browser.run("window.taken") is None
    assert browser.run("document.querySelectorAll('#list img, #list script').length") == 0
    shown = browser.run(f"{SHOWN}.map((one) => one.querySelector('h3 bdi').textContent)")
    assert shown[:2] == list(hostile_texts[:2])
    assert shown[2].startswith("\\u202eright to left \u05e9")
    assert shown[3] == hostile_texts[3]
    assert shown[4] == "a\\x00b\\x1b[31mred\\x07"
    assert shown[5] == f"{'x' * 2000}… (3,000 more characters)"
    browser.resize(390, 800)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.faults() == []
    assert browser.requests() == [page.resolve().as_uri()]
