from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib import resources

import pytest

from vlbench.report.html.board_page import BoardView
from vlbench.report.html.page import page, script_json
from vlbench.report.tables.markup import visible

HOSTILE = "</script><!--<script>\u2028 & \"quotes\" 'more' <b>"


class Elements(HTMLParser):
    """Tags with their attributes, and what scripts and styles hold."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, str] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style"):
            self.inside[self._open] = self.inside.get(self._open, "") + data
        self._open = ""


def test_json_comes_back_whole_and_cannot_end_its_element() -> None:
    value = {"text": HOSTILE, "numbers": [1, 0.5, None]}
    text = script_json(value)
    assert "<" not in text
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="JSON"):
        script_json([float("nan")])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 中 😀", "plain é 中 😀"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("two\nlines", "two\nlines"),
        ("\u202eback", "\\u202eback"),
        ("\x00\x1b\x7f", "\\x00\\x1b\\x7f"),
        ("\ud800", "\\ud800"),
    ],
)
def test_nothing_hides(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_page_runs_what_its_policy_names_and_nothing_else() -> None:
    made = page("board.html", HOSTILE, BoardView((), (HOSTILE, "\x00"), ()), ("tables.js",))
    found = Elements(made)
    policy = next(attrs["content"] for tag, attrs in found.tags if attrs.get("http-equiv"))
    assert policy is not None
    for element, rule in (("script", "script-src"), ("style", "style-src")):
        digest = base64.b64encode(hashlib.sha256(found.inside[element].encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert "b" not in {tag for tag, _ in found.tags}
    assert "\x00" not in made


def test_no_file_of_a_page_names_another_place_or_runs_texts() -> None:
    for file in resources.files("vlbench.report.html").joinpath("templates").iterdir():
        text = file.read_text(encoding="utf8")
        assert not re.search(r"https?://|//\w+\.\w|@import|url\(", text), file
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|fetch\(", text
        ), file
        assert not re.search(r"\son\w+=|\sstyle=|\|\s*safe", text), file
