"""What a string of a stranger becomes in Markdown and in a spreadsheet."""

from __future__ import annotations

import re

import pytest

from vlbench.report.tables.markup import as_csv, text

CODE = re.compile(r"(?<!\\)(`+)(?!`).*?(?<!`)\1(?!`)")
"""A code span of CommonMark, in which GitHub makes neither links nor mentions."""


@pytest.mark.parametrize(
    "name",
    [
        "https://evil.example/x", "see www.evil.example now", "ftp://evil.example", "HTTP://EVIL.EXAMPLE",
        "a model of @somebody", "somebody@evil.example", "mailto:a@b.example", "[click](http://evil.example)",
        "![x](https://evil.example/x.png)", "<a href=http://evil.example>x</a>", "`@somebody", "``@x` @y",
        "a@b|c@d", "@org/team", "cvlp@v2-tiny (lr 0.1)",
    ],
)  # fmt: skip
def test_markdown_links_nothing(name: str) -> None:
    found = text(name, "md")
    outside = CODE.sub("", found)
    assert not re.search(r"://|www\.|@|(?<!\\)\[|<", outside, re.IGNORECASE), found
    assert re.sub(r"[`\\ ]|&lt;", "", found).replace("<", "") == re.sub(r"[` ]", "", name).replace("<", "")


def test_harmless_names_stay_as_they_are() -> None:
    assert text("cvlp-tiny from scratch (lr 0.1)", "md") == "cvlp-tiny from scratch (lr 0.1)"
    assert text("a*b [c] <d> `e`", "md") == "a\\*b \\[c] &lt;d> \\`e\\`"
    assert text("x@y", "html") == text("x@y", "latex") == "x@y"


@pytest.mark.parametrize("sign", "=+-@＝＋－＠﹦﹢﹣﹫⁼⁺⁻")
@pytest.mark.parametrize("before", ["", " ", "  "])
def test_a_spreadsheet_finds_no_formula(sign: str, before: str) -> None:
    value = f"{before}{sign}HYPERLINK(1)"
    assert as_csv(value) == f"'{value}"
    assert as_csv(f"a{sign}b") == f"a{sign}b"


@pytest.mark.parametrize("first", ["\t", "\r", "\n", "\r\n", "\x0b", "\u00a0", "\u3000", "\ufeff"])
def test_white_space_begins_no_cell(first: str) -> None:
    """Spelled out, as `\\t`: what follows is no formula then."""
    assert as_csv(f"{first}=1+1")[0] in ("\\", "'")
