"""`vlbench profile`: measure the cost of models, side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from vlbench.cli.options import Quiet, with_options_of
from vlbench.cli.spec import require, split_models, split_names
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.options import normalise
from vlbench.core.paths import expand_home
from vlbench.core.profile import ProfileRecord, ProfileSpec, Scenario
from vlbench.core.validate import parse

if TYPE_CHECKING:
    from vlbench.core.record import RunRecord


@with_options_of(ProfileSpec)
def profile(
    given: Mapping[str, object],
    with_runs: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Folder of runs whose main metrics are plotted against latency.",
            rich_help_panel="Output",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The record on stdout, and nothing else.", rich_help_panel="Output")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Measure the cost of models: time by stage, FLOPs, parameters, memory, and the time of a search.

    Weights are random: time does not depend on them, except on how many proposals the detector keeps. A model that
    fails keeps a row with the reason, and the exit code is 8; if no model can be built it is 2 and nothing is written.

    \b
    Examples:
      vlbench profile --model cvlp,vilt,soho
      vlbench profile --model vilt --scenario latency,throughput --device cuda --dtype bfloat16 --energy
      vlbench profile --model cvlp,lxmert --stages "see,read,fuse"
      vlbench profile --model hf:CLIPModel,hf:BlipForImageTextRetrieval --scenario latency,retrieval
      vlbench profile --model brivl,vilt --scenario retrieval --max-seconds 30
      vlbench profile --model cvlp,vilt --size tiny --with-runs runs
    """
    spec = make_spec(given)
    runs = _runs(with_runs) if with_runs else []
    record, folder, charts = _measure(spec, runs, quiet or as_json)
    if as_json:
        typer.echo(record.model_dump_json())
        typer.echo(folder, err=True)
    else:
        from vlbench.report.speed.table import speed_table

        typer.echo("\n".join((f"{speed_table(record)}\n", *map(str, (*charts, folder)))))
    if any(model.error for model in record.models):
        raise typer.Exit(ExitCode.SOME_FAILED)


def make_spec(flags: Mapping[str, object]) -> ProfileSpec:
    """The spec that the flags ask for; raises VlbenchError if a value is not what its flag takes."""
    require(flags, "model", "cvlp")
    values = dict(flags)
    for name, read in _FROM_TEXT.items():
        if name in values:
            values[name] = read(str(values[name]))
    return parse(ProfileSpec, normalise(ProfileSpec, values, "profile"), "profile")


def _measure(spec: ProfileSpec, runs: list[RunRecord], quiet: bool) -> tuple[ProfileRecord, Path, list[Path]]:
    """Measure, and write the record and its charts; returns the record, its folder and the charts."""
    from vlbench.cli.progress import open_progress
    from vlbench.profiling.profile import profile as measure
    from vlbench.records.profiles import new_folder, write_profile
    from vlbench.report.speed.charts import left_out, save_front_chart, save_stages_chart

    models = re.sub(r"[^\w.-]+", "_", "-".join(spec.models))[:80]
    name = f"{models}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    with new_folder(expand_home(spec.output_path), name) as folder:
        with open_progress(quiet) as progress:
            record, raw = measure(spec, progress)
        write_profile(folder, record, raw)
        charts = [*save_stages_chart(record, folder), *save_front_chart(record, runs, folder)]
    for line in left_out(record, runs):
        typer.echo(line, err=True)
    return record, folder, charts


def _runs(folder: Path) -> list[RunRecord]:
    """The records of the runs in the folder."""
    from vlbench.records.folder import find_runs, read_run

    runs = [read_run(path) for path in find_runs(folder)]
    if not runs:
        raise VlbenchError(f"--with-runs {folder} holds no run: give an --output-path of `vlbench run`")
    return runs


def _scenarios(text: str) -> list[str]:
    if not text.strip(" ,"):
        known = ", ".join(get_args(Scenario))
        raise VlbenchError(f"--scenario {text!r} names nothing to measure: give one or more of {known}")
    return split_names("scenario", text)


def _sides(picture: str) -> tuple[int, int]:
    from PIL import Image

    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", picture)
    if not match or not (int(match[1]) and int(match[2])):
        raise VlbenchError(f"--picture {picture} is no width and height: give them as 1000x600")
    width, height = int(match[1]), int(match[2])
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and width * height > most:
        raise VlbenchError(f"--picture {picture} has {width * height:,} pixels: give at most {most:,}, as Pillow opens")
    return width, height


def _batch_sizes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise VlbenchError(f"--batch-sizes {text} are no numbers: give them as 1,8,64") from None


_FROM_TEXT: Mapping[str, Callable[[str], object]] = {
    "model": split_models,
    "scenario": _scenarios,
    "picture": _sides,
    "batch_sizes": _batch_sizes,
    "stages": lambda text: split_names("stages", text),
}
"""Flags whose text holds several values."""
