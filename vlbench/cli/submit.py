"""`vlbench submit`: write a run's answers for an official server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def submit(
    run: Annotated[Path, typer.Argument(help="A run's folder, the last line that `vlbench run` prints.")],
    to: Annotated[str, typer.Option(help="evalai-vqa2, evalai-gqa or nlvr2.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File; left out: in the run's folder.")] = None,
) -> None:
    """Write a run's answers in the format of an official server, and print where to submit them.

    Every example of the official split must be answered exactly once.

    \b
    Examples:
      vlbench run --task vqa2 --model vilt --size base --select-on none --split test --data-root DATA
      vlbench submit RUN --to evalai-vqa2
    """
    from vlbench.report.submit import submission

    path, server = submission(run, to, output)
    typer.echo(f"submit it to: {server}", err=True)
    typer.echo(path)
