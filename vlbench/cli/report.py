"""`vlbench report`: a run as one self-contained HTML file that works offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlbench.cli.options import TasksDir


def report(
    run: Annotated[Path, typer.Argument(help="A run's folder, the last line that `vlbench run` prints.")],
    other: Annotated[Path | None, typer.Argument(metavar="[RUN_B]", help="A run on the same examples.")] = None,
    html: Annotated[Path | None, typer.Option(help="File to write; left out: report.html in the run's folder.")] = None,
    max_examples: Annotated[int, typer.Option(min=0, help="Examples on the page.")] = 2000,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the images, if it has moved since the run.")] = None,
    tasks_dir: TasksDir = None,
    attention: Annotated[
        bool, typer.Option("--attention", help="Show attention over the images; computed once, from the weights.")
    ] = False,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="With --attention: run code of the model that the record names.")
    ] = False,
) -> None:
    """Write one self-contained HTML file with a run's scores, curves and examples, or those of two runs.

    \b
    Examples:
      vlbench report runs/nlvr2/cvlp-tiny/0123456789abcdef --html report.html
      vlbench report runs/nlvr2/cvlp-tiny/0123456789abcdef --attention
      vlbench report runs/vqa2/cvlp-tiny/0123456789abcdef runs/vqa2/vilt-tiny/fedcba9876543210 --html both.html
    """
    from vlbench.cli.progress import open_progress
    from vlbench.data.cache.folder import atomic_write
    from vlbench.engine.report_data import compute_attention, find_images
    from vlbench.records.folder import RunFolder, read_run
    from vlbench.report.html.run_page import run_page

    if attention:
        with open_progress() as progress:
            for path in filter(None, (run, other)):
                compute_attention(path, data_root, max_examples, progress, tasks_dir, trust_code)
    folder = RunFolder.open(run)
    path = html or folder.path / "report.html"
    atomic_write(path, run_page(run, other, find_images(folder, read_run(run), data_root, tasks_dir), max_examples))
    typer.echo(path)
