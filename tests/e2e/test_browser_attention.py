"""Attention over the pictures of a report in a real browser, by mouse and by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

PRESSED = "[...document.querySelectorAll('#attention button')].map((one) => one.getAttribute('aria-pressed'))"
HEATS = "document.querySelectorAll('canvas.heat').length"
IMAGES = "document.querySelectorAll('#list .pictures img').length"


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
    assert browser.contrast().faint == []
