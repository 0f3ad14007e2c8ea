"""Insert a generated part between two marks of a page, or check that it is up to date."""

from __future__ import annotations

import re
from pathlib import Path

from vlbench.core.errors import DataError, ExitCode, VlbenchError
from vlbench.data.cache.folder import atomic_write
from vlbench.data.cache.lock import only_editor

_MARKS = re.compile(r"(<!-- vlbench:begin(?: [^\n]*?)? -->\n)(.*?)(<!-- vlbench:end -->)", re.DOTALL)


def injected(page: str, content: str, where: str) -> str:
    """The page with the content between its marks; nothing else changes. Raises VlbenchError: there is not exactly one
    pair of marks, or the content holds one.
    """
    marks = list(_MARKS.finditer(page))
    begun, ended = page.count("<!-- vlbench:begin"), page.count("<!-- vlbench:end -->")
    if not len(marks) == begun == ended == 1:
        raise VlbenchError(
            f"{where} has {begun} marks `<!-- vlbench:begin ... -->` and {ended} marks `<!-- vlbench:end -->`: "
            f"expected one of each, each on a line of its own"
        )
    if "<!-- vlbench:" in content:
        raise VlbenchError(f"the table for {where} contains a mark: rename the model with that name")
    (match,) = marks
    return f"{page[: match.end(1)]}\n{content}\n\n{page[match.start(3) :]}"


def put(path: Path, content: str, *, marks: bool, check: bool) -> bool:
    """Write the content between the marks of a page, or as the whole page; with `check`, only compare.

    Returns whether the page was changed; with `check`, False.
    Raises VlbenchError: the marks are missing; or, with `check`, the page is stale (exit 11).
    Raises DataError: the page cannot be read or written.
    """
    with only_editor(path):
        old = _read(path) if marks or path.exists() else ""
        new = injected(old, content, str(path)) if marks else f"{content}\n"
        if new == old:
            return False
        if check:
            raise VlbenchError(f"{path} is stale: run the same command without --check and commit it", ExitCode.STALE)
        atomic_write(path, new)
        return True


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(f"{path} cannot be read ({reason}): give an existing text file") from None
