"""Charts of a run's training, from its `metrics.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from vlbench.report.html.chart_models import Chart
from vlbench.report.html.charts import line_chart

_RUN = "this run"


def training_charts(path: Path, metric: str) -> list[Chart]:
    """Training loss and selection metric by step, of the run and its trained controls; empty if none were written.
    metric: the task's main metric, which selects the checkpoint.
    """
    losses: dict[str, list[tuple[float, float]]] = {}
    chosen: dict[str, list[tuple[float, float]]] = {}
    for line in _lines(path):
        who = f"{line['control']} control" if isinstance(line.get("control"), str) else _RUN
        step, loss, selection = (_number(line, name) for name in ("step", "loss", "selection"))
        if step is not None and loss is not None:
            losses.setdefault(who, []).append((step, loss))
        if step is not None and selection is not None:
            name = f"{who}, {line['weights']} weights" if isinstance(line.get("weights"), str) else who
            chosen.setdefault(name, []).append((step, selection))
    charts = [
        line_chart("Training loss", f"Training loss by optimizer step: {_ends(losses)}.", "step", "loss", losses),
        line_chart(
            "Selection", f"{metric} on the split that selects the checkpoint: {_ends(chosen)}.", "step", metric, chosen
        ),
    ]
    return [chart for chart in charts if chart is not None]


def _lines(path: Path) -> Iterator[Mapping[str, object]]:
    """The complete lines of the file; a killed run may have left a partial line."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                values = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(values, dict):
                yield values


def _number(line: Mapping[str, object], name: str) -> float | None:
    value = line.get(name)
    return float(value) if isinstance(value, int | float) else None


def _ends(series: Mapping[str, list[tuple[float, float]]]) -> str:
    return "; ".join(f"{name} from {points[0][1]:.4g} to {points[-1][1]:.4g}" for name, points in series.items())
