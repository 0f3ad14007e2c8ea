"""`vlbench doctor`: check the machine, and a model on a task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlbench.cli.options import AsJson, DataRoot, TasksDir
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.spec import RunSpec
from vlbench.core.validate import parse

if TYPE_CHECKING:
    from vlbench.engine.doctor.checks import Check, Examination
    from vlbench.engine.doctor.machine import MachineReport


def doctor(
    model: Annotated[str | None, typer.Option(help="Model to check; left out: only the machine.")] = None,
    task: Annotated[str | None, typer.Option(help="Task to check it on.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Weights to check: a path, none, shipped or pretrained.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="tiny, small or base; left out: tiny on synthetic data, else base.")
    ] = None,
    data_root: DataRoot = None,
    tasks_dir: TasksDir = None,
    split: Annotated[
        str | None, typer.Option(help="Split to take examples from; left out: the task's report split.")
    ] = None,
    vocabulary: Annotated[Path | None, typer.Option(help="vocab.txt or tokenizer.json for the model.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; left out: the best available.")] = None,
    examples: Annotated[int, typer.Option(min=2, help="Examples to evaluate.")] = 64,
    steps: Annotated[int, typer.Option(min=0, help="Optimizer steps of each training check; 0: none.")] = 300,
    processes: Annotated[bool, typer.Option("--processes/--no-processes", help="Also check two processes.")] = True,
    allow_partial: Annotated[bool, typer.Option("--allow-partial", help="Accept incomplete data.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check that answers do not depend on batch, order, padding, precision or processes, and that the model can learn.

    The exit code is 12 if a check finds a fault.

    \b
    Examples:
      vlbench doctor
      vlbench doctor --model cvlp --task nlvr2
      vlbench doctor --model vilt --task vqa2 --data-root VQA --checkpoint vilt_vqa.ckpt --json
    """
    from vlbench.cli.progress import open_progress
    from vlbench.engine.doctor.checks import Examination
    from vlbench.engine.doctor.examine import ExaminationSize, examine
    from vlbench.engine.doctor.machine import describe_machine

    if (model is None) != (task is None):
        missing, given = ("--task", "--model") if task is None else ("--model", "--task")
        raise VlbenchError(f"{missing} is missing next to {given}: give both, or neither to check only the machine")
    if model is None:
        result = Examination(machine=describe_machine())
    else:
        named = {"checkpoint": checkpoint, "size": size, "split": split, "vocabulary": vocabulary, "device": device}
        places = {"data_root": data_root, "tasks_dir": tasks_dir, "allow_partial": allow_partial}
        spec = parse(RunSpec, {"model": model, "task": task, **named, **places}, "doctor")
        with open_progress(quiet=as_json) as progress:
            result = examine(spec, ExaminationSize(examples, steps, processes), progress)
    typer.echo(json.dumps(to_json_object(result), ensure_ascii=False) if as_json else page(result))
    if result.broken:
        raise VlbenchError(
            f"{len(result.broken)} of {len(result.checks)} checks found a fault in {model} on {task} "
            f"({', '.join(result.broken)}): do not trust its scores before that is fixed",
            ExitCode.FAULT,
        )


def to_json_object(result: Examination) -> dict[str, object]:
    """The object that `--json` prints."""
    return {**result.model_dump(mode="json"), "verdict": "broken" if result.broken else "ok"}


def page(result: Examination) -> str:
    """The machine, and below it the checks of the model, as text for a terminal."""
    from vlbench.engine.weights.loading import summary

    parts = [_machine(result.machine)]
    if result.model:
        parts += [
            f"{result.model}-{result.size} on {result.task} ({result.source})",
            summary(result.weights) if result.weights else "weights: none, from scratch",
            _checks(result.checks),
        ]
    return "\n\n".join(parts)


def _machine(machine: MachineReport) -> str:
    from tabulate import tabulate

    gpus = [f"{gpu.name}, {gpu.memory_gib} GiB{'' if gpu.bfloat16 else ', no bfloat16'}" for gpu in machine.gpus]
    free = "" if machine.cache_free_gib is None else f" ({machine.cache_free_gib} GiB free)"
    rows = [
        ("vlbench", machine.vlbench),
        ("python", f"{machine.python} on {machine.platform}"),
        ("libraries", ", ".join(f"{name} {version}" for name, version in machine.libraries.items())),
        ("cpu", f"{machine.cpu}, {machine.cores} cores to use, {machine.threads} threads"),
        ("memory", "unknown" if machine.memory_gib is None else f"{machine.memory_gib} GiB"),
        ("gpu", f"{'; '.join(gpus)} (driver {machine.driver or 'unknown'})" if gpus else "none that torch sees"),
        ("cache", f"{machine.cache}{free}"),
        ("extras", ", ".join(machine.extras) or "none"),
        *((f"no {extra}", why) for extra, why in machine.missing.items()),
    ]
    return tabulate(rows, tablefmt="plain", disable_numparse=True, maxcolwidths=[None, 100])


def _checks(checks: tuple[Check, ...]) -> str:
    from tabulate import tabulate

    headers = ("check", "verdict", "n", "flips", "largest difference", "tolerance", "found")
    rows = [
        (
            check.name,
            check.verdict,
            *("" if value is None else f"{value:,}" for value in (check.n, check.flips)),
            *("" if value is None else f"{value:.2g}" for value in (check.largest, check.tolerance)),
            check.found,
        )
        for check in checks
    ]
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True)
