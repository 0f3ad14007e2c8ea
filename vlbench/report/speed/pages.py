"""The page of speed records: `python -m vlbench.report.speed.pages [FOLDER] [--check]`.

FOLDER, `leaderboards/speed` where it is left out, holds `records/*.json`, each the `profile.json` of one profile; its
README.md and a picture of each record's stages are made of them. With `--check` nothing is written, and the exit code
is 11 where the page is not what the records say or a picture is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from vlbench.core.errors import ExitCode, VlbenchError, first_five
from vlbench.core.profile import ProfileRecord
from vlbench.data.cache.folder import atomic_write
from vlbench.records.profiles import read_profile
from vlbench.report.speed.charts import stages_picture
from vlbench.report.speed.table import speed_table
from vlbench.report.tables.markup import markdown

FOLDER = Path("leaderboards/speed")
PAGE = "README.md"
_LIBRARIES = ("torch", "transformers", "torchvision")
_ABOUT = """\
# Speed

What models of base size cost at the papers' sizes of input, with random weights: time does not depend on them, but for
how many proposals the detector keeps. Models of one record were measured in turn, so their ratios are worth more than
their milliseconds. `make speed` measures again, which writes `records/` and this page; `make speed-table` writes this
page from `records/`. What the papers say stands beside it, never in a measured column."""


def page(records: Mapping[str, ProfileRecord]) -> str:
    """The page's text; records: by the name of their file."""
    parts = [_ABOUT]
    for name, record in records.items():
        parts += [f"## {markdown(name)}", _conditions(record), speed_table(record)]
        if any(one.latency for one in record.models):
            parts.append(f"![Milliseconds by stage]({_picture(name)})")
    return "\n\n".join(parts) + "\n"


def records_of(folder: Path) -> dict[str, ProfileRecord]:
    """The records below the folder, by name.

    Raises:
        VlbenchError: there are none; one is corrupt (exit 5).
    """
    found = {path.stem: read_profile(path) for path in sorted((folder / "records").glob("*.json"))}
    if not found:
        raise VlbenchError(f"{folder / 'records'} holds no profile: copy the profile.json of `vlbench profile` there")
    return found


def write(folder: Path) -> None:
    """Make the page and the pictures."""
    records = records_of(folder)
    for name, record in records.items():
        stages_picture(record, folder / "pictures" / name)
    atomic_write(folder / PAGE, page(records))


def stale(folder: Path) -> list[Path]:
    """The page where it is not what the records say, and the pictures that it shows and that are not there."""
    records, path = records_of(folder), folder / PAGE
    current = path.is_file() and path.read_text(encoding="utf-8") == page(records)
    pictures = [folder / _picture(name) for name, one in records.items() if any(of.latency for of in one.models)]
    return [*([] if current else [path]), *(one for one in pictures if not one.is_file())]


def _picture(name: str) -> str:
    return f"pictures/{name}/stages.png"


def _conditions(record: ProfileRecord) -> str:
    machine, where = record.machine, record.environment
    device = f"{where.gpu}, driver {where.driver}, {machine.clocks or 'clocks unknown'}" if where.gpu else where.cpu
    libraries = ", ".join(f"{name} {where.libraries[name]}" for name in _LIBRARIES if name in where.libraries)
    load = "" if machine.load is None else f", load {machine.load:.2f} before"
    return "\n".join(
        [
            f"- Machine: {markdown(device)}, {machine.cores} cores, {machine.threads} threads{load}.",
            f"- vlbench {record.tool.version}, Python {where.python}, {libraries}; {record.started[:10]}, "
            f"{record.seconds:.0f} s.",
        ]
    )


def main(arguments: list[str]) -> ExitCode:
    """Write the page, or check it."""
    folders = [Path(one) for one in arguments if one != "--check"] or [FOLDER]
    try:
        for folder in folders:
            if "--check" not in arguments:
                write(folder)
            elif old := stale(folder):
                names = first_five(map(str, old))
                print(f"{names}: missing, or not what the records say: run make speed-table", file=sys.stderr)
                return ExitCode.STALE
    except VlbenchError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
