"""`vlbench show`: print examples of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def show(
    run: Annotated[Path, typer.Argument(help="A run's folder, the last line that `vlbench run` prints.")],
    wrong: Annotated[bool, typer.Option("--wrong", help="Show only wrong answers.")] = False,
    n: Annotated[int, typer.Option("-n", min=1, help="Number of examples.")] = 20,
) -> None:
    """Show the answers of a run, with references and confidences.

    \b
    Examples:
      vlbench show runs/nlvr2/cvlp-tiny/0123456789abcdef --wrong -n 5
    """
    from vlbench.report.show import show_rows

    typer.echo(show_rows(run, wrong=wrong, n=n))
