"""`vlbench data`: generate synthetic data and extract region features; check, list and fetch have their own files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vlbench.cli import check, fetch
from vlbench.cli.check import splits_there
from vlbench.cli.options import AllowPartial, Quiet, TasksDir
from vlbench.cli.spec import split_names
from vlbench.core.domain import known_domain

app = typer.Typer(help="Generate, fetch and check data, and extract region features.", no_args_is_help=True,
    rich_markup_mode=None)  # fmt: skip
app.command("list")(fetch.list_)
app.command("fetch")(fetch.fetch)
app.command("check")(check.check)


@app.command("world")
def world(
    domain: Annotated[str, typer.Option(help="Domain: plain or textured.")] = "plain",
    seed: Annotated[int, typer.Option(help="Seed of the data.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Generate the synthetic data in the cache folder, and print its path.

    \b
    Examples:
      vlbench data world
      vlbench data world --domain textured --seed 1
    """
    from vlbench.cli.progress import open_progress
    from vlbench.data.cache.folder import cache_folder
    from vlbench.world.generate import WAITING, ensure_world

    with open_progress(quiet) as progress:
        root = ensure_world(
            cache_folder(), known_domain(domain), seed, progress=progress.step, on_wait=partial(progress.say, WAITING)
        )
    typer.echo(root)


@app.command("features")
def features(
    task: Annotated[str, typer.Option(help="Task of the data.")],
    data_root: Annotated[Path, typer.Option(help="Folder of the data.")],
    tasks_dir: TasksDir = None,
    split: Annotated[str | None, typer.Option(help="Splits, with commas; left out: all that exist.")] = None,
    extractor: Annotated[
        str,
        typer.Option(
            help="flat: areas of one colour or a grid, needs no weights; fasterrcnn: the detector of the region models."
        ),
    ] = "flat",
    weights: Annotated[
        str | None, typer.Option(metavar="<path>", help="fasterrcnn: file of its weights, or none for random weights.")
    ] = None,
    regions: Annotated[
        str | None, typer.Option(help="fasterrcnn: 36 regions per image (the default), or 10-100 by confidence.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="fasterrcnn: cpu, cuda or mps; left out: the best available.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the TSV files; left out: the task's features/.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing TSV files.")] = False,
    allow_partial: AllowPartial = False,
    quiet: Quiet = False,
) -> None:
    """Extract region features without a detector or with Faster R-CNN: one TSV file in LXMERT's format per split.

    Runs find the files in the task's features folder. Without --overwrite, an existing file ends the command with exit
    code 2 before anything is extracted.

    \b
    Examples:
      vlbench data features --task nlvr --data-root NLVR --split dev,test
      vlbench data features --task coco_retrieval --data-root COCO --extractor fasterrcnn --weights butd.bin
    """
    from vlbench.cli.progress import open_progress
    from vlbench.engine.region_features import ExtractorOptions, find_output_files, make_extractor, write_features
    from vlbench.engine.source import load_task

    with open_progress(quiet) as progress:
        loaded = load_task(task, data_root, tasks_dir=tasks_dir, allow_partial=allow_partial, progress=progress)
        splits = splits_there(loaded) if split is None else split_names("split", split)
        places = find_output_files(output or loaded.root / "features", splits, overwrite)
        describe = make_extractor(ExtractorOptions(extractor, weights, regions, device), progress)
        for name, path in places.items():
            count = write_features(loaded, name, path, describe, progress)
            typer.echo(path)
            progress.say(f"{name}: features of {count:,} images extracted by {extractor}")
