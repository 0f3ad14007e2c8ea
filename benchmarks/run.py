"""Run every benchmark that has another side, and compare its ratios with those recorded in `results/`.

Run as `python benchmarks/run.py`, or only those that take seconds: `--quick`; `--update` records the ratios, otherwise
the exit status is 1 if one of them is below its recorded interval by more than the margin, twice in a row: a script
whose ratio is too low is run again. A benchmark is a script of
this folder with a function `ratios(repeats)`: the name of a comparison and the other side's time over this side's, for
each repeat. `QUICK` says whether it takes seconds. Every script runs in its own process, so that threads and caches are
its own; both sides of a comparison run in that one process.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from vlbench.core.cores import usable_cores
from vlbench.profiling.stopping_rule import median_interval

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results" / "cpu.json"
MARGIN = 0.25
"""The share of an interval's end by which a median may lie outside it: other machines, and other load."""
WIDEST = 2.0
"""An interval whose ends differ by more than this factor is not recorded: hardly a ratio would be outside of it."""
LIBRARIES = ("torch", "numpy", "pyarrow")

Verdict = Literal["ok", "slower", "faster: record again", "not recorded", "not measured any more"]
FAILURES: frozenset[Verdict] = frozenset({"slower", "not measured any more"})


@dataclass(frozen=True, slots=True)
class Record:
    """A comparison's ratios: their median, its 95 % interval (of few repeats, the smallest and the largest ratio), when
    and where they were measured.
    """

    median: float
    low: float
    high: float
    repeats: int
    date: str
    machine: str

    @classmethod
    def of(cls, values: Sequence[float]) -> Record:
        """The record of ratios measured now, on this machine."""
        median, low, high = (round(value, 4) for value in (statistics.median(values), *median_interval(values)))
        return cls(median, low, high, len(values), date.today().isoformat(), machine())


@dataclass(frozen=True, slots=True)
class Row:
    """A comparison, its record, the median measured now, and what follows from both."""

    name: str
    recorded: Record | None
    measured: float | None
    verdict: Verdict


def judge(recorded: Mapping[str, Record], measured: Mapping[str, Sequence[float]], margin: float) -> list[Row]:
    """A row for each comparison, recorded or measured, by name.

    recorded: the comparisons of the scripts that ran, and of no others.
    """
    return [_row(name, recorded.get(name), measured.get(name), margin) for name in sorted({*recorded, *measured})]


def _row(name: str, recorded: Record | None, values: Sequence[float] | None, margin: float) -> Row:
    if not values:
        return Row(name, recorded, None, "not measured any more")
    median = statistics.median(values)
    if recorded is None:
        return Row(name, None, median, "not recorded")
    if median < recorded.low * (1 - margin):
        return Row(name, recorded, median, "slower")
    return Row(name, recorded, median, "faster: record again" if median > recorded.high * (1 + margin) else "ok")


def main() -> int:
    """Run the scripts and print a table; the exit status is 1 if a comparison fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="*", help="their names without .py; left out: all")
    parser.add_argument("--quick", action="store_true", help="only those that take seconds")
    parser.add_argument("--update", action="store_true", help="record the ratios")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--margin", type=float, default=MARGIN)
    parser.add_argument("--results", type=Path, default=RESULTS)
    wanted = parser.parse_args()
    known = scripts()
    if unknown := sorted(set(wanted.scripts) - known.keys()):
        parser.error(f"no such benchmark: {', '.join(unknown)}; expected some of {', '.join(known)}")
    chosen = [
        name for name, quick in known.items() if name in (wanted.scripts or known) and (quick or not wanted.quick)
    ]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    measured = measure_all(chosen, wanted.repeats)
    records = read_records(wanted.results)
    ran = {name: record for name, record in records.items() if script_of(name) in chosen}
    rows = judge(ran, measured, wanted.margin)
    if wanted.update:
        print(table(rows))
        others = {name: record for name, record in records.items() if name not in ran}
        write_records(wanted.results, others | recorded(measured))
        return 0
    if doubtful := {script_of(row.name) for row in rows if row.verdict == "slower"}:
        again = measure_all(sorted(doubtful), wanted.repeats)
        slower = {row.name for row in rows if row.verdict == "slower"}
        rows = judge(ran, measured | {name: again[name] for name in slower if name in again}, wanted.margin)
    print(table(rows))
    return int(any(row.verdict in FAILURES for row in rows))


def measure_all(chosen: Sequence[str], repeats: int) -> dict[str, list[float]]:
    """The ratios of these scripts by the name of the comparison, which begins with the script's."""
    return {
        f"{script}: {name}": values for script in chosen for name, values in in_new_process(script, repeats).items()
    }


def script_of(name: str) -> str:
    """The script of a comparison."""
    return name.split(":")[0]


def recorded(measured: Mapping[str, Sequence[float]]) -> dict[str, Record]:
    """The records of what was measured; those with too wide an interval are left out and named."""
    records = {name: Record.of(values) for name, values in measured.items()}
    wide = sorted(name for name, record in records.items() if not record.high <= WIDEST * record.low)
    for name in wide:
        print(f"not recorded, as its interval is too wide: {name}", file=sys.stderr)
    return {name: record for name, record in records.items() if name not in wide}


def scripts() -> dict[str, bool]:
    """The benchmarks with another side, and whether each is quick; read from the source, nothing is imported."""
    return {
        path.stem: is_quick(path)
        for path in sorted(FOLDER.glob("*.py"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "ratios" for node in _statements(path))
    }


def is_quick(path: Path) -> bool:
    """Whether the script says that it takes seconds."""
    return any(ast.unparse(node) == "QUICK = True" for node in _statements(path))


def _statements(path: Path) -> list[ast.stmt]:
    return ast.parse(path.read_text(encoding="utf-8")).body


def in_new_process(script: str, repeats: int) -> dict[str, list[float]]:
    """The ratios of a script, which runs in an interpreter of its own."""
    print(f"{script} ...", file=sys.stderr, flush=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(ratios_of, script, repeats).result()


def ratios_of(script: str, repeats: int) -> dict[str, list[float]]:
    """The ratios of a script; what it prints goes to stderr."""
    sys.stdout = sys.stderr
    sys.path.insert(0, str(FOLDER))
    measure: Callable[[int], dict[str, list[float]]] = importlib.import_module(script).ratios
    return measure(repeats)


def read_records(path: Path) -> dict[str, Record]:
    """The recorded comparisons; none if there is no such file."""
    if not path.exists():
        return {}
    return {name: Record(**fields) for name, fields in json.loads(path.read_text(encoding="utf-8")).items()}


def write_records(path: Path, records: Mapping[str, Record]) -> None:
    """Write the comparisons as JSON, by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {name: asdict(records[name]) for name in sorted(records)}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def machine() -> str:
    """The processor, its usable cores, and the versions that decide the times."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return f"{processor()}, {usable_cores()} cores, Python {platform.python_version()}, {libraries}"


def processor() -> str:
    """The processor's name as Linux gives it, else its architecture."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| comparison | recorded | measured | verdict |", "|---|---|---|---|"]
    for row in rows:
        recorded = row.recorded
        interval = f"{recorded.median:.2f} ({recorded.low:.2f} to {recorded.high:.2f})" if recorded else ""
        measured = f"{row.measured:.2f}" if row.measured is not None else ""
        lines.append(f"| {row.name} | {interval} | {measured} | {row.verdict} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
