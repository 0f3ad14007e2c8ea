"""`vlbench doctor`: is this machine, and a model on a task, as it should be?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.spec import RunSpec
from vlbench.core.validate import parse

if TYPE_CHECKING:
    from vlbench.engine.doctor.checks import Check, Examination
    from vlbench.engine.doctor.machine import MachineReport


def doctor(
    model: Annotated[str | None, typer.Option(help="Model to look at; left out: only the machine.")] = None,
    task: Annotated[str | None, typer.Option(help="Task to look at it on.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Weights to look at; none; shipped; pretrained.")] = None,
    size: Annotated[str | None, typer.Option(help="tiny, small, base; tiny on the world, else base.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data; left out: the built-in world.")] = None,
    tasks_dir: Annotated[Path | None, typer.Option(help="Folder with task folders of your own.")] = None,
    split: Annotated[str | None, typer.Option(help="Split to take examples from; left out: the reported one.")] = None,
    vocabulary: Annotated[Path | None, typer.Option(help="vocab.txt or tokenizer.json for the model.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; left out: the best there is.")] = None,
    examples: Annotated[int, typer.Option(min=2, help="Examples to ask.")] = 64,
    steps: Annotated[int, typer.Option(min=0, help="Steps of each try at learning; 0: none.")] = 300,
    processes: Annotated[bool, typer.Option("--processes/--no-processes", help="Try two processes too.")] = True,
    allow_partial: Annotated[bool, typer.Option("--allow-partial", help="Accept other counts.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Check that answers do not depend on batch, order, padding, precision or processes, and that the model can learn.

    Exit code 12 where a check finds a fault.

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
        raise VlbenchError(f"{missing} is missing beside {given}: name both, or none to look at the machine alone")
    if model is None:
        found = Examination(machine=describe_machine())
    else:
        named = {"checkpoint": checkpoint, "size": size, "split": split, "vocabulary": vocabulary, "device": device}
        places = {"data_root": data_root, "tasks_dir": tasks_dir, "allow_partial": allow_partial}
        spec = parse(RunSpec, {"model": model, "task": task, **named, **places}, "doctor")
        with open_progress(quiet=as_json) as progress:
            found = examine(spec, ExaminationSize(examples, steps, processes), progress)
    typer.echo(json.dumps(to_json_object(found), ensure_ascii=False) if as_json else page(found))
    if found.broken:
        raise VlbenchError(
            f"{len(found.broken)} of {len(found.checks)} checks found a fault in {model} on {task} "
            f"({', '.join(found.broken)}): do not trust its figures before that is mended",
            ExitCode.FAULT,
        )


def to_json_object(found: Examination) -> dict[str, object]:
    """What `--json` prints."""
    return {**found.model_dump(mode="json"), "verdict": "broken" if found.broken else "ok"}


def page(found: Examination) -> str:
    """The machine, and below it the model's checks, for a terminal."""
    parts = [_machine(found.machine)]
    if found.model:
        parts += [
            f"{found.model}-{found.size} on {found.task} ({found.source})",
            _weights(found),
            _checks(found.checks),
        ]
    return "\n\n".join(parts)


def _machine(machine: MachineReport) -> str:
    from tabulate import tabulate

    gpus = [f"{gpu.name}, {gpu.memory_gib} GiB{'' if gpu.bfloat16 else ', no bfloat16'}" for gpu in machine.gpus]
    room = "" if machine.cache_free_gib is None else f" ({machine.cache_free_gib} GiB free)"
    rows = [
        ("vlbench", machine.vlbench),
        ("python", f"{machine.python} on {machine.platform}"),
        ("libraries", ", ".join(f"{name} {version}" for name, version in machine.libraries.items())),
        ("cpu", f"{machine.cpu}, {machine.cores} cores to use, {machine.threads} threads"),
        ("memory", "unknown" if machine.memory_gib is None else f"{machine.memory_gib} GiB"),
        ("gpu", f"{'; '.join(gpus)} (driver {machine.driver or 'unknown'})" if gpus else "none that torch sees"),
        ("cache", f"{machine.cache}{room}"),
        ("extras", ", ".join(machine.extras) or "none"),
        *((f"no {extra}", why) for extra, why in machine.missing.items()),
    ]
    return tabulate(rows, tablefmt="plain", disable_numparse=True, maxcolwidths=[None, 100])


def _weights(found: Examination) -> str:
    from vlbench.engine.weights.loading import summary

    return summary(found.weights) if found.weights else "weights: none, from scratch"


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
