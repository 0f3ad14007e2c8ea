"""Render a template with style and script as one self-contained page; untrusted text stays inert."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vlbench.report.drawing import theme_css
from vlbench.report.tables.markup import visible


def page(template: str, title: str, view: object, scripts: Sequence[str]) -> str:
    """The whole page; the template finds its content as `view`. Its Content-Security-Policy allows only the style and
    script with these hashes, and no requests. template: name of a file in `templates`. scripts: names of files in
    `templates`, concatenated.
    """
    style = theme_css() + _asset("page.css")
    script = "\n".join(_asset(name) for name in scripts)
    policy = (
        f"default-src 'none'; img-src data:; style-src {_source(style)}; script-src {_source(script)}; "
        f"base-uri 'none'; form-action 'none'"
    )
    text = (
        _environment()
        .get_template(template)
        .render(title=title, view=view, policy=policy, style=Markup(style), script=Markup(script))
    )
    return f"{text}\n"


def script_json(value: object) -> Markup:
    """A value as JSON for a script element: `<` and `>` are escaped, so that no `</script>` ends it. Raises ValueError:
    a number in it is NaN or infinite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e"))


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("vlbench.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible_value,
    )


def _visible_value(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(name: str) -> str:
    return resources.files("vlbench.report.html").joinpath("templates", name).read_text(encoding="utf-8")


def _source(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
