"""The pages of reports and leaderboards in a real browser: what a reader does with mouse, keys and a screen reader."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

MakeReport = Callable[..., Path]
HOSTILE = (
    "</script><script>window.taken=1</script>",
    '<img src=x onerror="window.taken=1">',
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd\u202c",
    "👩\u200d🔬 measures",
    "a\x00b\x1b[31mred\x07",
    "x" * 5000,
)
SHOWN = "[...document.querySelectorAll('#list > li')]"
COUNT = "document.getElementById('count').textContent"


def choose(browser: Any, name: str, value: str) -> None:
    """Set a control as a hand would, and tell the page."""
    browser.run(
        f"(() => {{ const one = document.getElementById({name!r}); one.value = {value!r};"
        "one.dispatchEvent(new Event('input', {bubbles: true})); one.dispatchEvent(new Event('change')); })()"
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_world: Path) -> list[Path]:
    """Two quick runs of the fake model that differ in their seed."""
    from vlbench.cli.main import main

    place = tmp_path_factory.mktemp("runs")
    for seed in ("0", "1"):
        arguments = ["run", "--task", "nlvr2", "--model", "fake", "--data-root", str(tiny_world), "--seed", seed]
        arguments += ["--steps", "4", "--batch-size", "8", "--controls", "none", "--quiet", "--output-path", str(place)]
        assert main(arguments) == 0
    return sorted(path.parent for path in place.rglob("run.json"))


@pytest.fixture(scope="module")
def report(runs: list[Path]) -> Path:
    """The page of both runs."""
    from vlbench.cli.main import main

    page = runs[0] / "both.html"
    assert main(["report", *map(str, runs), "--html", str(page)]) == 0
    return page


def test_a_report_of_two_runs_is_read_and_searched(browser: Any, report: Path, runs: list[Path]) -> None:
    import pandas as pd

    a, b = (pd.read_parquet(run / "samples.parquet") for run in runs)
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
    choose(browser, "outcome", "wrong")
    assert browser.run(COUNT).startswith(f"{wrong} of ")
    assert browser.run(f"{SHOWN}.every((one) => one.classList.contains('wrong'))")
    choose(browser, "outcome", "")

    choose(browser, "flip", "flipped")
    assert browser.run(COUNT).startswith(f"{(both.score_x != both.score_y).sum()} of ")
    choose(browser, "flip", "")

    kind = a.tag_kind.iloc[0]
    choose(browser, "tag-0", kind)
    assert browser.run(COUNT).startswith(f"{(a.tag_kind == kind).sum()} of ")
    choose(browser, "tag-0", "")

    choose(browser, "order", "sure")
    sure = browser.run(f"{SHOWN}.map((one) => parseFloat(one.querySelectorAll('dd')[1].textContent.split('(')[1]))")
    assert sure == sorted(sure, reverse=True)
    choose(browser, "least", "100.5")
    assert browser.run(COUNT).startswith("0 of ")
    browser.run("document.querySelector('button[type=reset]').click()")
    assert browser.run(f"new Promise(done => setTimeout(() => done({COUNT}), 50))") == f"{total} of {total} examples"

    choose(browser, "search", a.example_id.iloc[3])
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


@pytest.fixture(scope="module")
def attentive(tmp_path_factory: pytest.TempPathFactory, tiny_world: Path) -> Path:
    """The page of a quick run of ViLT against one of CVLP, both with attention."""
    from vlbench.cli.main import main

    place = tmp_path_factory.mktemp("attentive")
    arguments = ["run", "--task", "nlvr2", "--model", "vilt,cvlp", "--data-root", str(tiny_world), "--steps", "4"]
    arguments += ["--batch-size", "8", "--controls", "none", "--quiet", "--output-path", str(place)]
    assert main(arguments) == 0
    vilt, cvlp = (next(place.glob(f"nlvr2/{name}-tiny/*")) for name in ("vilt", "cvlp"))
    page = place / "page.html"
    assert main(["report", str(vilt), str(cvlp), "--attention", "--html", str(page)]) == 0
    return page


PRESSED = "[...document.querySelectorAll('#attention button')].map((one) => one.getAttribute('aria-pressed'))"
HEATS = "document.querySelectorAll('canvas.heat').length"
IMAGES = "document.querySelectorAll('#list .pictures img').length"


def test_attention_is_shown_and_hidden_by_mouse(browser: Any, attentive: Path) -> None:
    browser.open(attentive)
    browser.resize(1000, 900)
    assert browser.run(HEATS) == 0
    assert browser.run("[...document.querySelectorAll('#attention button')].map((one) => one.textContent)") == [
        "Attention of A",
        "Attention of B",
    ]
    browser.click("#attention button[data-run=a]")
    assert browser.run(PRESSED) == ["true", "false"]
    assert browser.run(HEATS) == browser.run(IMAGES) > 0
    of_a = browser.run("[...document.querySelectorAll('figcaption.heat')].map((one) => one.textContent)")
    assert all(said.startswith("Most attention: ") and said.endswith(" %") for said in of_a)
    browser.click("#attention button[data-run=b]")
    assert browser.run(PRESSED) == ["false", "true"]
    assert browser.run(HEATS) == browser.run(IMAGES)
    assert browser.run("[...document.querySelectorAll('figcaption.heat')].map((one) => one.textContent)") != of_a
    browser.click("#attention button[data-run=b]")
    assert browser.run(PRESSED) == ["false", "false"]
    assert browser.run(HEATS) == browser.run("document.querySelectorAll('figcaption.heat').length") == 0
    assert browser.faults() == []
    assert browser.requests() == [attentive.resolve().as_uri()]


def test_attention_is_shown_and_hidden_by_key(browser: Any, attentive: Path) -> None:
    browser.open(attentive)
    seen = []
    for _ in range(3):
        browser.press("a")
        seen.append(browser.run(PRESSED))
    assert seen == [["true", "false"], ["false", "true"], ["false", "false"]]
    browser.press("a")
    browser.press("j")
    browser.press("Enter")
    assert browser.run("document.activeElement.getAttribute('aria-expanded')") == "true", "the list is as it was"
    browser.press("/")
    browser.press("a")
    assert browser.run("document.getElementById('search').value") == "a", "while one types it is a letter"
    assert browser.run(PRESSED) == ["true", "false"]
    browser.run("new Promise(done => setTimeout(done, 100))")
    assert browser.run(HEATS) == browser.run(IMAGES) > 0, "what is found anew has it too"
    assert browser.faults() == []


def test_attention_lies_on_its_picture(browser: Any, attentive: Path) -> None:
    """The canvas covers the picture, is clear where its highest level is and dark where there is none."""
    browser.open(attentive)
    browser.resize(390, 800)
    browser.press("a")
    browser.press("a")
    found = browser.run(
        """[...document.querySelectorAll('canvas.heat')].slice(0, 20).map((one, number) => {
          const data = JSON.parse(document.getElementById('data').textContent);
          const [a, b] = [one, one.previousElementSibling].map((each) => each.getBoundingClientRect());
          const heat = data.rows[number >> 1].b.attention[number % 2];
          const place = heat.levels.indexOf('z');
          const [left, top, wide, high] = data.boxes[heat.boxes].slice(4 * place, 4 * place + 4);
          const alpha = (x, y) => one.getContext('2d').getImageData(x * one.width, y * one.height, 1, 1).data[3];
          return {
            same: ['left', 'top', 'width', 'height'].every((side) => Math.abs(a[side] - b[side]) < 1),
            heaviest: alpha((left + wide / 2) / 1000, (top + high / 2) / 1000),
            darkest: Math.max(...Array.from({length: 40 * 40}, (_, i) => alpha((i % 40) / 40, (i / 40 | 0) / 40))),
          };
        })"""
    )
    assert len(found) == 20
    assert all(one["same"] and one["heaviest"] == 0 and one["darkest"] > 150 for one in found), found
    assert browser.run("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("dark", [False, True])
def test_texts_about_attention_stand_out(browser: Any, attentive: Path, dark: bool) -> None:
    browser.open(attentive)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.send("Emulation.setEmulatedMedia", {"features": scheme})
    browser.press("a")
    assert browser.run(CONTRAST)["faint"] == []


def test_a_screen_reader_finds_its_way(browser: Any, report: Path) -> None:
    browser.open(report)
    levels = browser.run("[...document.querySelectorAll('h1, h2, h3, h4')].map((one) => Number(one.tagName[1]))")
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    nameless = "[...document.querySelectorAll('input, select')].filter((one) => one.labels.length === 0).length"
    assert browser.run(nameless) == 0
    assert browser.run("[...document.querySelectorAll('button')].every((one) => one.textContent.trim() !== '')")
    assert browser.run("[...document.images].every((one) => one.alt !== '')")
    assert browser.run("[...document.querySelectorAll('svg.chart')].every((one) => one.getAttribute('aria-label'))")
    assert browser.run("document.querySelectorAll('svg.chart').length") > 0
    ids = browser.run("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))
    assert browser.run("document.documentElement.lang") == "en"


@pytest.mark.parametrize("dark", [False, True])
def test_texts_stand_out_from_their_ground(browser: Any, report: Path, dark: bool) -> None:
    browser.open(report)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.send("Emulation.setEmulatedMedia", {"features": scheme})
    seen = browser.run(CONTRAST)
    assert seen["texts"] > 50
    assert seen["faint"] == []


CONTRAST = """(() => {
  const parse = (text) => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = (colour) => {
    const [r, g, b] = colour.map((one) => (one /= 255) <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (one) => {
    if (!one) return [255, 255, 255, 1];
    const own = parse(getComputedStyle(one).backgroundColor);
    return own[3] === 1 ? own : over(own, ground(one.parentElement));
  };
  const faint = []; let texts = 0;
  for (const one of document.body.querySelectorAll("*")) {
    const says = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!says || !one.checkVisibility() || one.closest("svg, script, style, option")) continue;
    texts += 1;
    const ink = over(parse(getComputedStyle(one).color), ground(one));
    const [a, b] = [light(ink), light(ground(one))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(`${one.tagName} ${one.className} ${one.textContent.slice(0, 40)}`);
  }
  return {texts, faint};
})()"""


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_a_page_is_never_wider_than_its_window(browser: Any, report: Path, width: int) -> None:
    browser.open(report)
    browser.resize(width, 800)
    assert browser.run("document.documentElement.scrollWidth") <= width


def test_light_and_dark_are_two_pictures(browser: Any, report: Path, tmp_path: Path) -> None:
    from PIL import Image

    browser.open(report)
    corners = []
    for dark in (False, True):
        browser.screenshot(tmp_path / "page.png", 390, 800, dark=dark)
        with Image.open(tmp_path / "page.png") as picture:
            assert picture.size == (390, 800)
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 20, "something is drawn"
            corners.append(sum(picture.convert("RGB").getpixel((2, 2))))
    assert corners[0] > 600
    assert corners[1] < 150


def test_hostile_texts_stay_texts(browser: Any, make_hostile: MakeReport, vlbench: Any, tmp_path: Path) -> None:
    run = make_hostile(HOSTILE)
    page = tmp_path / "hostile.html"
    done = vlbench("report", run, "--html", page)
    assert done.code == 0, done.err
    browser.open(page)
    assert browser.run("window.taken") is None
    assert browser.run("document.querySelectorAll('#list img, #list script').length") == 0
    shown = browser.run(f"{SHOWN}.map((one) => one.querySelector('h3 bdi').textContent)")
    assert shown[:2] == list(HOSTILE[:2])
    assert shown[2].startswith("\\u202eright to left \u05e9")
    assert shown[3] == HOSTILE[3]
    assert shown[4] == "a\\x00b\\x1b[31mred\\x07"
    assert shown[5] == f"{'x' * 2000}… (3,000 more characters)"
    browser.resize(390, 800)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.faults() == []
    assert browser.requests() == [page.resolve().as_uri()]


def test_a_leaderboard_sorts_and_narrows(
    browser: Any, runs: list[Path], vlbench: Any, make_hostile: MakeReport, tmp_path: Path
) -> None:
    hostile = make_hostile(HOSTILE)
    page = tmp_path / "board.html"
    done = vlbench(
        "leaderboard", *runs, hostile, "--columns", "main,parameters", "--pareto", "parameters", "--format", "html",
        "--output", page,
    )  # fmt: skip
    assert done.code == 0, done.err
    browser.open(page)
    headers = "[...document.querySelector('table.sortable').tHead.rows[0].cells]"
    column = (
        "[...document.querySelector('table.sortable').tBodies[0].rows].map((r) => Number(r.cells[1].dataset.value))"
    )
    for descending in (True, False):
        browser.run(f"{headers}[1].querySelector('button').click()")
        assert browser.run(f"{headers}[1].getAttribute('aria-sort')") == ("descending" if descending else "ascending")
        values = browser.run(column)
        assert values == sorted(values, reverse=descending)
    browser.press("/")
    for key in "nobody":
        browser.press(key)
    assert browser.run(COUNT).startswith("0 of ")
    assert browser.run("document.querySelectorAll('svg.chart').length") > 0
    assert browser.run("window.taken") is None
    assert browser.faults() == []
    assert browser.requests() == [page.resolve().as_uri()]


@pytest.fixture
def make_hostile(tmp_path: Path) -> MakeReport:
    """Write a run whose every text is given."""
    from vlbench import __version__
    from vlbench.core.record import Environment, ModelInfo, Result, RunRecord, TaskInfo, ToolInfo
    from vlbench.core.spec import RunSpec
    from vlbench.records.folder import RunFolder
    from vlbench.records.samples import SampleRow, write_samples

    def make(texts: tuple[str, ...]) -> Path:
        rows = [
            SampleRow(
                example_id=text[:300], split=text[:300], group=text, text=text, image_ids=(text[:300],),
                reference='{"value": "a"}', prediction=text, confidence=0.5, score=float(place % 2), status="error",
                error=text, labels=(text,), label_scores=(0.5,), written=text, tags={"kind": text},
            )
            for place, text in enumerate(texts)
        ]  # fmt: skip
        folder = tmp_path / "hostile"
        folder.mkdir()
        result = Result(
            metric="accuracy", value=50.0, n=6,
            slices={texts[0]: {text: Result(metric="accuracy", value=50.0, n=1) for text in texts}},
        )  # fmt: skip
        record = RunRecord(
            status="done", fingerprint="0" * 16, spec=RunSpec(task="nlvr2", model=texts[1], size=texts[0]),
            tool=ToolInfo(version=__version__),
            model=ModelInfo(name=texts[1] + texts[2], size=texts[0], parameters=1, from_scratch=False),
            task=TaskInfo(
                name="nlvr2", version=1, source="real", manifest_sha256="m", split=texts[0], n_total=6, n_scored=6,
                main_metric="accuracy", notes=texts,
            ),
            environment=Environment(python="3", libraries={texts[0]: texts[1]}, cpu=texts[1], threads=1),
            started=texts[0], results=(result,),
        )  # fmt: skip
        RunFolder(folder).write_record(record)
        write_samples(folder / "samples.parquet", rows)
        return folder

    return make
