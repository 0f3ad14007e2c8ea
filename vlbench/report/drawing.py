"""Charts drawn by matplotlib, without pyplot: parts of a page, SVG files and PNG files.

The same values give the same bytes. In SVG the colours of the theme are CSS variables, so that a chart follows the
light or dark scheme of its reader, and nothing has a `style` attribute, which the pages' Content-Security-Policy
forbids.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from vlbench.data.cache.folder import atomic_file, atomic_write
from vlbench.report.tables.markup import visible

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

_COLORS = ("paper", "ink", "quiet", "edge", "s1", "s2", "s3", "s4")
"""The theme's colours that charts use, each with another value."""
_TOOLTIP = "tooltip: "
UNITS_PER_INCH = 72
"""Of an SVG, whose units are points."""
_NUMBER = re.compile(r"-?\d+\.\d+")
_ROUNDED = ("d", "x", "y", "transform")
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@contextmanager
def chart_style() -> Iterator[None]:
    """The settings that charts are made and drawn with, whatever the user's own settings of matplotlib are."""
    from matplotlib import rc_context, rcdefaults, rcParams

    ink, quiet, edge = color("ink"), color("quiet"), color("edge")
    with rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # readers have fonts of their own
        rcdefaults()
        rcParams.update({
            "svg.fonttype": "none", "svg.hashsalt": "vlbench", "text.parse_math": False, "axes.unicode_minus": False,
            "font.size": 12, "text.color": ink, "axes.labelcolor": ink, "xtick.labelcolor": quiet,
            "ytick.labelcolor": quiet, "xtick.color": edge, "ytick.color": edge, "axes.edgecolor": edge,
            "axes.facecolor": "none", "figure.facecolor": color("paper"), "savefig.facecolor": "auto",
            "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "lines.linewidth": 2,
            "axes.grid": True, "axes.grid.axis": "y", "grid.color": edge, "grid.alpha": 0.3,
            "xtick.major.size": 5, "ytick.major.size": 0, "legend.frameon": False,
        })  # fmt: skip
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many SVG units, which no window and no global state of pyplot knows."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / UNITS_PER_INCH, height / UNITS_PER_INCH))


def color(name: str) -> str:
    """The theme's colour of that name in light mode, as `#rrggbb`."""
    return _theme()[name]


def add_tooltip(artist: Artist, text: str) -> None:
    """Give the artist a text that is shown while the pointer is over it, in SVG only."""
    artist.set_gid(f"{_TOOLTIP}{visible(text)}")


def svg_content(figure: Figure) -> str:
    """What stands within the `<svg>` element of the figure: no ids, no styles, no references."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_text(visible(text.get_text()))
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata=_NO_METADATA)
    drawn = ElementTree.fromstring(file.getvalue())
    markers = {f"#{element.get('id')}": element for element in drawn.iter() if _name(element.tag) == "path"}
    return "\n".join(content for child in drawn if (content := _content(child, markers)))


def svg_document(figure: Figure, title: str) -> str:
    """The figure as a whole SVG file with that title."""
    width, height = (f"{UNITS_PER_INCH * inches:g}" for inches in figure.get_size_inches())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}" font-family="system-ui, sans-serif">\n'
        f"<style>{theme_css()}</style>\n{svg_content(figure)}\n</svg>"
    )


def save_figure(figure: Figure, folder: Path, name: str, title: str) -> list[Path]:
    """Write the figure as `name.png` and `name.svg` into the folder and return both paths."""
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with atomic_file(png) as file:
        figure.savefig(file, format="png", dpi=150)
    atomic_write(svg, svg_document(figure, title) + "\n")
    return [png, svg]


@cache
def theme_css() -> str:
    """The colours of pages and charts, in light and dark mode, as CSS variables."""
    return resources.files("vlbench.report.html").joinpath("templates", "theme.css").read_text(encoding="utf-8")


@cache
def _theme() -> Mapping[str, str]:
    light = theme_css().partition("}")[0]
    return {name: value for name, value in re.findall(r"--(\w+): (#[0-9a-f]{6})", light) if name in _COLORS}


def _content(element: ElementTree.Element, markers: Mapping[str, ElementTree.Element]) -> str:
    """The element without what matplotlib adds for its own use; markers: id -> the shape that a `use` stands for."""
    name = _name(element.tag)
    if name in ("metadata", "defs"):
        return ""
    attributes = {_name(key): value for key, value in element.items()}
    if name == "use":
        name, place = "path", f"translate({attributes.pop('x')} {attributes.pop('y')})"
        attributes |= {"d": markers[attributes.pop("href")].get("d", ""), "transform": place}
    title = attributes.pop("id", "")
    attributes.pop("clip-path", None)  # all that is drawn lies within its axes
    inside = [f"<title>{escape(title.removeprefix(_TOOLTIP))}</title>"] if title.startswith(_TOOLTIP) else []
    inside += [content for child in element if (content := _content(child, markers))]
    text = escape((element.text or "").strip())
    if name == "g" and not inside:
        return ""
    if name == "g" and not title.startswith(_TOOLTIP) and not attributes:
        return "\n".join(inside)
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    attributes |= _presentation(attributes.pop("style", ""))
    written = "".join(f' {key}="{escape(_plain(key, value))}"' for key, value in attributes.items())
    return f"<{name}{written}>{text}{''.join(inside)}</{name}>"


def _presentation(style: str) -> dict[str, str]:
    """A `style` attribute as attributes of their own, the theme's colours as variables; the font is the page's."""
    pairs = (part.partition(":") for part in style.split(";") if part.strip())
    values = {name.strip(): value.strip() for name, _, value in pairs}
    if font := values.pop("font", ""):  # of matplotlib before 3.10
        values["font-size"] = next(word for word in font.split() if word.endswith("px"))
    values.pop("font-family", None)
    variables = {value: f"var(--{name})" for name, value in _theme().items()}
    return {name: variables.get(value, value) for name, value in values.items()}


def _plain(key: str, value: str) -> str:
    """Coordinates to two decimals, so that rounding errors of another machine do not show."""
    if key not in _ROUNDED:
        return value
    return _NUMBER.sub(lambda number: f"{round(float(number[0]), 2) + 0.0:g}", " ".join(value.split()))


def _name(tag: str) -> str:
    return tag.rpartition("}")[2]
