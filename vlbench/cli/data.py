"""`vlbench data`: make the world, describe pictures by regions; check, list and fetch have files of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlbench.cli import check, fetch
from vlbench.cli.check import splits_there
from vlbench.cli.spec import split_names
from vlbench.core.domain import known_domain

app = typer.Typer(help="Make, check and describe data.", no_args_is_help=True, rich_markup_mode=None)

app.command("list")(fetch.list_)
app.command("fetch")(fetch.fetch)
app.command("check")(check.check)

Task = Annotated[str, typer.Option(help="Task whose data is meant.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of the data; left out: the built-in world.")]
TasksDir = Annotated[Path | None, typer.Option(help="Folder with task folders of your own.")]
Splits = Annotated[str | None, typer.Option("--split", help="Splits, comma-separated; left out: those that are there.")]
AllowPartial = Annotated[bool, typer.Option("--allow-partial", help="Accept other counts; noted.")]


@app.command("world")
def world(
    domain: Annotated[str, typer.Option(help="The look: plain or textured.")] = "plain",
    seed: Annotated[int, typer.Option(help="Seed of another world.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Make the built-in world in the cache folder, and print where it is.

    \b
    Examples:
      vlbench data world
      vlbench data world --domain textured --seed 1
    """
    from vlbench.cli.progress import open_progress
    from vlbench.data.cache.folder import cache_folder
    from vlbench.world.generate import ensure_world

    with open_progress(quiet) as progress:
        root = ensure_world(cache_folder(), known_domain(domain), seed, progress=progress.step)
    typer.echo(root)


@app.command("features")
def features(
    task: Task,
    data_root: Annotated[Path, typer.Option(help="Folder of the data.")],
    tasks_dir: TasksDir = None,
    split: Splits = None,
    extractor: Annotated[
        str, typer.Option(help="flat: parts of one colour or a grid, no weights; fasterrcnn: as region models had.")
    ] = "flat",
    weights: Annotated[
        str | None, typer.Option(metavar="<path>", help="Of fasterrcnn: its file, or none for random ones.")
    ] = None,
    regions: Annotated[
        str | None, typer.Option(help="Of fasterrcnn: 36 a picture (the default), or as many as it is sure of: 10-100.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Of fasterrcnn: cpu, cuda or mps; left out: the best there is.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the TSV files; left out: the task's features/.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace TSV files that are there.")] = False,
    allow_partial: AllowPartial = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Describe every picture by regions and write one LXMERT-format TSV per split, where runs look for them.

    A file that is there is not written again without --overwrite: nothing is described, and the exit code is 2.

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
            progress.say(f"{name}: {count:,} pictures described by {extractor}")
