"""The page of speed records: `python -m vlbench.report.speed.pages [FOLDER] [--check]`.

FOLDER, `leaderboards/speed` where it is left out, holds `records/*.json`, each the `profile.json` of one profile; its
README.md and a chart of each record's stages are made from them. With `--check` nothing is written, and the exit code
is 11 if the page is stale or a chart is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from vlbench.core.errors import ExitCode, VlbenchError, first_five
from vlbench.core.paths import visible
from vlbench.core.profile import ProfileRecord
from vlbench.data.cache.folder import atomic_write
from vlbench.records.profiles import read_profile
from vlbench.report.speed.charts import save_stages_chart
from vlbench.report.speed.table import speed_table
from vlbench.report.tables.markup import markdown

FOLDER = Path("leaderboards/speed")
PAGE = "README.md"
_LIBRARIES = ("torch", "transformers", "torchvision")
_ABOUT = """\
# Speed

Costs of models of base size at the input sizes of the papers, with random weights: weights do not affect the time,
except through the number of proposals that the detector keeps. Models of one record were measured in turn, so their
ratios are more reliable than their milliseconds. `make speed` measures again and writes `records/` and this page;
`make speed-table` writes this page from `records/`. Published values have their own columns and are never mixed with
measured ones."""


def page(records: Mapping[str, ProfileRecord]) -> str:
    """The page's text; records: by the name of their file."""
    parts = [_ABOUT]
    for name, record in records.items():
        parts += [f"## {markdown(name)}", _conditions(record), speed_table(record)]
        if any(model.latency for model in record.models):
            parts.append(f"![Milliseconds by stage]({_chart(name)})")
    return "\n\n".join(parts) + "\n"


def records_of(folder: Path) -> dict[str, ProfileRecord]:
    """The records below the folder, by name. Raises VlbenchError: there are none; one is corrupt (exit 5)."""
    records = {path.stem: read_profile(path) for path in visible(folder / "records", "*.json")}
    if not records:
        raise VlbenchError(f"{folder / 'records'} holds no profile: copy the profile.json of `vlbench profile` there")
    return records


def write(folder: Path) -> None:
    """Write the page and the charts."""
    records = records_of(folder)
    for name, record in records.items():
        save_stages_chart(record, folder / "pictures" / name)
    atomic_write(folder / PAGE, page(records))


def stale(folder: Path) -> list[Path]:
    """The page if it is not up to date with the records, and the charts that it shows but that are missing."""
    records, path = records_of(folder), folder / PAGE
    current = path.is_file() and path.read_text(encoding="utf-8") == page(records)
    charts = [
        folder / _chart(name) for name, record in records.items() if any(model.latency for model in record.models)
    ]
    return [*([] if current else [path]), *(path for path in charts if not path.is_file())]


def _chart(name: str) -> str:
    return f"pictures/{name}/stages.png"


def _conditions(record: ProfileRecord) -> str:
    machine, where = record.machine, record.environment
    device = f"{where.gpu}, driver {where.driver}, {machine.clocks or 'clocks unknown'}" if where.gpu else where.cpu
    libraries = ", ".join(f"{name} {where.libraries[name]}" for name in _LIBRARIES if name in where.libraries)
    load = "" if machine.load is None else f", load {machine.load:.2f} before"
    return (
        f"- Machine: {markdown(device)}, {machine.cores} cores, {machine.threads} threads{load}.\n- vlbench "
        f"{record.tool.version}, Python {where.python}, {libraries}; {record.started[:10]}, {record.seconds:.0f} s."
    )


def main(arguments: list[str]) -> ExitCode:
    """Write the page, or check it."""
    folders = [Path(argument) for argument in arguments if argument != "--check"] or [FOLDER]
    try:
        for folder in folders:
            if "--check" not in arguments:
                write(folder)
            elif old := stale(folder):
                names = first_five(map(str, old))
                print(f"{names}: missing or stale: run make speed-table", file=sys.stderr)
                return ExitCode.STALE
    except VlbenchError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
