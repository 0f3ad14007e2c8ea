"""`vlbench profile`: what models cost, side by side."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from vlbench.cli.spec import split_models, split_names
from vlbench.core.errors import ExitCode, VlbenchError

if TYPE_CHECKING:
    from vlbench.core.record import RunRecord


def profile(
    ctx: typer.Context,
    model: Annotated[
        str, typer.Option(help="Models, comma-separated, measured in turn; also hf:CLIPModel, without weights.")
    ],
    size: Annotated[
        str | None, typer.Option(help="Size of every model but those of hf:, which have one; left out: the paper's.")
    ] = None,
    task: Annotated[str, typer.Option(help="Task whose head is put on top.")] = "coco_retrieval",
    scenario: Annotated[str, typer.Option(help="latency, throughput, retrieval; comma-separated.")] = "latency",
    picture: Annotated[str, typer.Option(help="Width and height of the pictures.")] = "1000x600",
    words: Annotated[int, typer.Option(help="Words of the texts.")] = 12,
    vocabulary: Annotated[Path | None, typer.Option(help="vocab.txt; left out: a made-up one as long.")] = None,
    batch_sizes: Annotated[str | None, typer.Option(help="Of throughput; left out: 1, 2, 4 ... to the best.")] = None,
    stages: Annotated[
        str | None, typer.Option(help="Measure the latency of these stages alone, comma-separated.")
    ] = None,
    iterations: Annotated[int, typer.Option(help="Of each model and batch size at least.")] = 10,
    seconds: Annotated[float, typer.Option(help="Of each model at least.")] = 1.0,
    precision: Annotated[float, typer.Option(help="The median's 95 % interval, as a share of it.")] = 0.02,
    max_seconds: Annotated[float, typer.Option(help="Of each scenario at most.")] = 60.0,
    detector: Annotated[bool, typer.Option(help="Charge region models for making their regions.")] = True,
    energy: Annotated[bool, typer.Option("--energy", help="Joules per example, where the GPU tells.")] = False,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; left out: the best there is.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; left out: torch's default.")] = None,
    with_runs: Annotated[
        Path | None, typer.Option(help="Folder of runs whose main metrics are drawn against latency.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of pictures, texts and random weights.")] = 0,
    output_path: Annotated[Path, typer.Option(help="Where profiles are kept.")] = Path("profiles"),
    as_json: Annotated[bool, typer.Option("--json", help="The record on stdout, and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Measure what models cost: time by stage, operations, parameters, memory, and what a search costs.

    Weights are random: time does not depend on them, but for how many proposals the detector keeps. A model that fails
    keeps a row with the reason, and the exit code is 8; where none can be opened it is 2, and nothing is written.

    \b
    Examples:
      vlbench profile --model cvlp,vilt,soho
      vlbench profile --model vilt --scenario latency,throughput --device cuda --dtype bfloat16 --energy
      vlbench profile --model cvlp,lxmert --stages "see,read,fuse"
      vlbench profile --model hf:CLIPModel,hf:BlipForImageTextRetrieval --scenario latency,retrieval
      vlbench profile --model brivl,vilt --scenario retrieval --max-seconds 30
      vlbench profile --model cvlp,vilt --size tiny --with-runs runs
    """
    from vlbench.cli.progress import open_progress
    from vlbench.core.profile import ProfileSpec
    from vlbench.core.validate import parse
    from vlbench.profiling.profile import profile as measure
    from vlbench.records.profiles import new_folder, write_profile
    from vlbench.report.speed.charts import left_out, save_front_chart, save_stages_chart
    from vlbench.report.speed.table import speed_table

    given = {name: value for name, value in ctx.params.items() if name in ProfileSpec.model_fields}
    given["models"], given["scenario"], given["picture"] = split_models(model), _scenarios(scenario), _sides(picture)
    given["batches"] = _numbers("--batch-sizes", batch_sizes) if batch_sizes else ()
    given["stages"] = split_names("stages", stages) if stages is not None else ()
    spec = parse(ProfileSpec, given, "profile")
    runs = _runs(with_runs) if with_runs else []
    name = f"{_safe('-'.join(spec.models))}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    with new_folder(spec.output_path, name) as folder:
        with open_progress(quiet or as_json) as progress:
            record, raw = measure(spec, progress)
        write_profile(folder, record, raw)
        stages_drawn, front = save_stages_chart(record, folder), save_front_chart(record, runs, folder)
    for line in left_out(record, runs):
        typer.echo(line, err=True)
    files = "\n".join(map(str, [*stages_drawn, *front, folder]))
    typer.echo(record.model_dump_json() if as_json else f"{speed_table(record)}\n\n{files}")
    if as_json:
        typer.echo(folder, err=True)
    if any(one.error for one in record.models):
        raise typer.Exit(ExitCode.SOME_FAILED)


def _runs(folder: Path) -> list[RunRecord]:
    """The runs in the folder."""
    from vlbench.records.folder import find_runs, read_run

    runs = [read_run(path) for path in find_runs(folder)]
    if not runs:
        raise VlbenchError(f"--with-runs {folder} holds no run: give a folder that `vlbench run` wrote into")
    return runs


def _scenarios(text: str) -> list[str]:
    from vlbench.core.profile import Scenario

    if not text.strip(" ,"):
        known = ", ".join(get_args(Scenario))
        raise VlbenchError(f"--scenario {text!r} names nothing to measure: give one or more of {known}")
    return split_names("scenario", text)


def _sides(picture: str) -> tuple[int, int]:
    from PIL import Image

    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", picture)
    if not found or not (int(found[1]) and int(found[2])):
        raise VlbenchError(f"--picture {picture} is no width and height: give them as 1000x600")
    width, height = int(found[1]), int(found[2])
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and width * height > most:
        raise VlbenchError(f"--picture {picture} has {width * height:,} pixels: give at most {most:,}, as Pillow opens")
    return width, height


def _numbers(flag: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise VlbenchError(f"{flag} {text} are no numbers: give them as 1,8,64") from None


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)[:80]
