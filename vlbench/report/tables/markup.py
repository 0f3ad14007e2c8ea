"""Cells of tables in Markdown, HTML and LaTeX: untrusted strings stay plain text, numbers carry their marks."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping, Sequence
from math import floor, log10
from typing import Literal, get_args

from tabulate import tabulate

from vlbench.core.errors import printable
from vlbench.report.tables.results import cell

Markup = Literal["md", "html", "latex"]
MARKUPS: tuple[Markup, ...] = get_args(Markup)
_LONGEST = 60
_DIGITS = 3
_SMALLEST = 1e-4
"""Below it a power of ten is easier to read than leading zeros."""
_TABULATE = {"md": "github", "html": "unsafehtml", "latex": "latex_raw"}
_BOLD = {"md": "**{}**", "html": "<strong>{}</strong>", "latex": "\\textbf{{{}}}"}
_GREY = {"md": "({})", "html": '<span class="grey" title="{title}">{}</span>', "latex": "\\textcolor{{gray}}{{{}}}"}
PREAMBLE: Mapping[Markup, str] = {"latex": "% in the preamble: \\usepackage{xcolor,amssymb}"}
"""The first lines of a text whose marks need a package."""
_SIGNS: Mapping[str, Mapping[Markup, str]] = {
    "±": {"md": "±", "html": "±", "latex": "$\\pm$"},
    "≈": {"md": "≈", "html": "≈", "latex": "$\\approx$"},
    "◆": {"md": "◆", "html": "◆", "latex": "$\\blacklozenge$"},
}
_JOINERS = frozenset("\u200c\u200d\n\t")
"""Not printable by Python's rule, but part of words and emoji, or harmless."""
_WORD, _TICKS = re.compile(r"\S+"), re.compile(r"`+")
_LINKED = re.compile(r"://|www\.|@", re.IGNORECASE)
_LATEX = {
    "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}",
    "|": "\\textbar{}",
}  # fmt: skip


def as_markup(form: str) -> Markup:
    """The markup of that name. Raises ValueError: there is none."""
    return [*MARKUPS][[str(name) for name in MARKUPS].index(form)]


def text(value: str, markup: Markup, longest: int = _LONGEST) -> str:
    """A string as plain content of a cell: one line, shortened, and nothing in it is markup."""
    short = value if len(value) <= longest else f"{value[: longest - 3]}..."
    if markup == "html":
        return html.escape(cell(short).replace("\\|", "|"))
    if markup == "latex":
        return "".join(_LATEX.get(char, char) for char in cell(short).replace("\\|", "|"))
    return markdown(short)


def visible(text: str) -> str:
    """The text with control characters and direction marks as escapes."""
    return "".join(
        char if char.isprintable() or char in _JOINERS else char.encode("unicode_escape").decode() for char in text
    )


def markdown(value: str) -> str:
    """A string as plain content of a Markdown cell, however long: one line, and nothing in it is markup or a link."""
    return _WORD.sub(lambda match: _plain_word(match[0]), cell(value))


def _plain_word(word: str) -> str:
    """A word that Markdown shows unchanged. HTML, links and images start with characters that can be escaped. GitHub
    also links bare URLs and user names everywhere except in code, after escapes are resolved.
    """
    if not _LINKED.search(word):
        return word.replace("<", "&lt;").replace("[", "\\[").replace("`", "\\`").replace("*", "\\*")
    fence = "`" * (1 + max(map(len, _TICKS.findall(word)), default=0))
    space = " " if word.startswith("`") or word.endswith("`") else ""
    return f"{fence}{space}{word}{space}{fence}"


def as_csv(value: str) -> str:
    """A string as a cell of a spreadsheet that is not read as a formula: one line, no control characters.

    Source: OWASP, CSV Injection, which names = + - @, tab, line ends and the full-width forms of the signs. Tabs and
    line ends are escaped here, so that no cell starts with them.
    """
    plain = printable(value)
    first = unicodedata.normalize("NFKC", plain.lstrip()[:1])  # = of full-width, small and raised forms
    return f"'{plain}" if first in tuple("=+-@−") else plain


def bold(value: str, markup: Markup) -> str:
    """A value as the best one."""
    return _BOLD[markup].format(value)


def grey(value: str, markup: Markup, title: str) -> str:
    """A value that does not count: in brackets, or grey where the markup has colours."""
    return _GREY[markup].format(value, title=text(title, "html", 300))


def sign(name: str, markup: Markup) -> str:
    """One of ±, ≈ (within noise of the best) and ◆ (on the front)."""
    return _SIGNS[name][markup]


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], markup: Markup) -> str:
    """A table of cells that are markup already; the first column is left-aligned, the others right-aligned."""
    align = ["left"] + ["right"] * (len(headers) - 1)
    return tabulate(rows, headers, tablefmt=_TABULATE[markup], disable_numparse=True, colalign=align)


def paragraph(lines: Sequence[str], markup: Markup) -> str:
    """Lines as a paragraph that keeps its line breaks."""
    if markup == "html":
        return "<p>" + "<br>\n".join(lines) + "</p>"
    return "\n".join(f"% {line}" for line in lines) if markup == "latex" else "  \n".join(lines)


def title(value: str, markup: Markup) -> str:
    """The title above a table; a comment in LaTeX, whose tables have captions."""
    return {"md": f"**{value}**", "html": f"<h2>{value}</h2>", "latex": f"% {value}"}[markup]


def rounded(value: float | None) -> str:
    """A value with three significant digits, or more before the decimal point; a dash for None."""
    if value is None:
        return "-"
    short = float(f"{value:.{_DIGITS}g}")  # first of all, so that 99.96 is 100 and not 100.0
    if short == 0 or abs(short) >= 100:
        return f"{value:,.0f}"
    if abs(short) < _SMALLEST:
        return f"{value:.{_DIGITS - 1}e}"
    return f"{value:.{_DIGITS - 1 - floor(log10(abs(short)))}f}"


def with_interval(value: float, ci95: tuple[float, float]) -> str:
    """A value with its 95 % interval, each with three significant digits."""
    return f"{rounded(value)} [{rounded(ci95[0])}, {rounded(ci95[1])}]"
