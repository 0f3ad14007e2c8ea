"""`vlbench submit`: a run's answers for an official server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def submit(
    run: Annotated[Path, typer.Argument(help="A run's folder, the last line that `vlbench run` prints.")],
    to: Annotated[str, typer.Option(help="evalai-vqa2, evalai-gqa or nlvr2.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File; left out: in the run's folder.")] = None,
) -> None:
    """Write a run's answers as an official server takes them, and say where to hand them in.

    Refused unless every example of the official split is answered exactly once.

    \b
    Examples:
      vlbench run --task vqa2 --model vilt --size base --select-on none --split test --data-root DATA
      vlbench submit RUN --to evalai-vqa2
    """
    from vlbench.report.submit import submission

    path, where = submission(run, to, output)
    typer.echo(f"hand it in: {where}", err=True)
    typer.echo(path)
