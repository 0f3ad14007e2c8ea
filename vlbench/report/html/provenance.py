"""Provenance and costs of a run, next to those of another run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from vlbench.core.record import RunRecord
from vlbench.core.splits import joined
from vlbench.report.html.chart_models import Cell, Grid
from vlbench.report.tables.protocol import protocol
from vlbench.report.tables.results import decoding_text


def provenance(records: Sequence[RunRecord]) -> Grid:
    """Data, model, training, code and machine, with a column for each run; differences are marked."""
    return _columns("Provenance", [_facts(record) for record in records])


def costs(records: Sequence[RunRecord]) -> Grid | None:
    """Speed, latency, memory and seconds of each phase; None if no record has any."""
    facts = [_costs(record) for record in records]
    return _columns("Costs", facts) if any(facts) else None


def spec(record: RunRecord) -> str:
    """The whole spec as JSON."""
    return json.dumps(record.spec.model_dump(mode="json", exclude_none=True), indent=2, ensure_ascii=False)


def _columns(caption: str, facts: Sequence[Mapping[str, str]]) -> Grid:
    rows = []
    for name in dict.fromkeys(name for run in facts for name in run):
        values = [run.get(name) or "–" for run in facts]
        differs = len(set(values)) > 1
        rows.append((Cell(name), *(Cell(value, kind="differs" if differs else "") for value in values)))
    return Grid(caption, ("", "A", "B") if len(facts) > 1 else ("", "this run"), tuple(rows))


def _facts(record: RunRecord) -> dict[str, str]:
    task, model, tool, machine = record.task, record.model, record.tool, record.environment
    facts = {
        "run": record.fingerprint,
        "status": record.status,
        "seal": "none, so edits are not detected" if record.is_unsealed else "",
        "task": f"{task.name}, version {task.version}, split {task.split}",
        "data": "real data" if task.source == "real" else f"built-in world ({record.spec.domain})",
        "data manifest": task.manifest_sha256,
        "examples": f"{task.n_scored:,} of {task.n_total:,}",
        "protocol": protocol(record),
        "model": f"{model.name}-{model.size}, {model.parameters:,} parameters",
        "weights": "from scratch" if model.from_scratch else model.weights_sha256 or "unnamed",
        "weights loaded": _loaded(record),
        "tokenizer": model.tokenizer_sha256,
        "preprocessing": ", ".join(f"{name} {value}" for name, value in model.preprocessing.items()),
        "model's code": model.model_sha256,
        "task's card and code": task.task_sha256,
        **_asked(record),
        "training": _training(record),
        "seed": str(record.spec.seed),
        "code": f"vlbench {tool.version} {tool.commit[:12]}{' with changes' if tool.dirty else ''}".strip(),
        "hash of the code": ", then ".join((*tool.earlier_code, tool.code_sha256)),
        "machine": f"{machine.gpu or machine.cpu}, {machine.device}, {machine.threads} threads, "
        f"{machine.world_size} processes"
        + (f", {machine.trials_at_once} trials at once" if machine.trials_at_once > 1 else ""),
        "libraries": ", ".join(
            f"{name} {version}" for name, version in {"python": machine.python, **machine.libraries}.items()
        ),
        "started": f"{record.started}, {record.seconds:,.0f} s",
    }
    return {name: value for name, value in facts.items() if value}


def _asked(record: RunRecord) -> dict[str, str]:
    """The prompt of one example and the generation settings; empty if the model was not prompted."""
    asked = record.model.prompting
    if asked is None:
        return {}
    return {
        f"prompt of {asked.example}": asked.prompt,
        "chat template": asked.chat_template_sha256,
        "generation": decoding_text(asked.decoding),
    }


def _loaded(record: RunRecord) -> str:
    report = record.model.load_report
    if report is None:
        return ""
    return f"{report.matched} matched, {report.missing} missing, {report.unexpected} unexpected"


def _training(record: RunRecord) -> str:
    train = record.train
    if train is None:
        return "none"
    rate = "" if train.recipe.lr is None else f", learning rate {train.recipe.lr:g}"
    return (
        f"{train.steps:,} steps of {train.effective_batch} on {joined(train.train_split)}{rate}, "
        f"best at {train.best_step:,} ({train.weights} weights) by {train.selected_on}"
        f"{'' if train.selection is None else f', {train.selection:.2f} there'}"
    )


def _costs(record: RunRecord) -> dict[str, str]:
    efficiency = record.efficiency
    if efficiency is None:
        return {}
    return {
        "examples per second": f"{efficiency.examples_per_second:,.1f}",
        **{f"latency {name}, ms per batch": f"{value:,.1f}" for name, value in efficiency.latency_ms.items()},
        "peak memory, MiB": f"{efficiency.peak_memory_mib:,.0f}",
        **{f"seconds: {name}": f"{value:,.1f}" for name, value in efficiency.seconds.items()},
    }
