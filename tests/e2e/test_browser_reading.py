"""What a reader needs of a page in a real browser: headings, names, contrast, small windows, light and dark."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest


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
    seen = browser.contrast()
    assert seen.texts > 50
    assert seen.faint == []


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
