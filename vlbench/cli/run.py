"""`vlbench run`: flags, a YAML file and `--set` become one RunSpec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlbench.cli.options import Config, Quiet, Settings, with_options_of
from vlbench.cli.spec import deep_update, read_sources, require, split_models, split_names
from vlbench.core.errors import ExitCode, VlbenchError, first_five, printable
from vlbench.core.options import check_distinct
from vlbench.core.record import RunRecord
from vlbench.core.spec import RunSpec
from vlbench.core.user_code import print_frames
from vlbench.core.validate import brief, parse
from vlbench.engine.runtime.ranks import SharedError, check_size, is_launched, launched

if TYPE_CHECKING:
    from vlbench.records.folder import RunFolder


@with_options_of(RunSpec)
def run(
    given: Mapping[str, object],
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N,...", help="Several seeds with commas: one run for each.", rich_help_panel="What to run"
        ),
    ] = None,
    config: Config = None,
    settings: Settings = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and an estimate of the time, then exit.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Finetune a model on a task, score it, record it, print the table.

    \b
    Examples:
      vlbench run --task nlvr2 --model cvlp
      vlbench run --task vqa2,gqa,nlvr2,snli_ve,coco_retrieval --model cvlp,vilt
      vlbench run --task nlvr --model cvlp --size tiny --data-root NLVR --train-split dev --split test --select-on none
      vlbench run --task nlvr2 --model cvlp --mode eval --checkpoint RUN --split test-u
      vlbench run --task nlvr2 --model cvlp --log-with tensorboard,wandb
      vlbench run --config run.yaml --set train.lr=3e-5 --seeds 0,1,2
      vlbench run --task nlvr2 --model cvlp --num-processes 2
      torchrun --nproc-per-node 2 -m vlbench run --task nlvr2 --model cvlp
    \b
    The exit code is 8 if some runs failed, or some examples with --on-error record, and the others are saved.
    """
    flags = dict(given) if seeds is None else {**given, "seeds": seeds}
    # All names are checked before the first run starts, not after an hour of work.
    specs = _runnable(make_specs(flags, config, settings or []))
    if dry_run:
        _print_plans(specs, quiet)
        return
    records = _run_all(specs, quiet) if len(specs) > 1 else [_run_one(specs[0], quiet)]
    if any(record.unanswered for record in records):
        raise typer.Exit(ExitCode.SOME_FAILED)


def _runnable(specs: list[RunSpec]) -> list[RunSpec]:
    """The specs whose model supports their task; the others are named and left out.

    Raises VlbenchError if a name is unknown, or no spec is left.
    """
    from vlbench.engine.job import rejection

    reasons = [rejection(spec) for spec in specs]
    if all(reasons) and reasons[0]:
        raise reasons[0]
    for reason in filter(None, reasons):
        _say(f"left out: {reason.message}", err=True)
    return [spec for spec, reason in zip(specs, reasons, strict=True) if not reason]


def _print_plans(specs: list[RunSpec], quiet: bool) -> None:
    """Print what each run would do, and an estimate of its time."""
    from vlbench.cli.dry_run import dry_run_text
    from vlbench.cli.progress import open_progress
    from vlbench.engine.dry_run import dry_run

    for number, spec in enumerate(specs):
        if is_launched():
            check_size(launched().size, spec.num_processes)
        processes = launched().size if is_launched() else spec.num_processes or 1
        with open_progress(quiet or not launched().is_main) as progress:
            plan = dry_run(spec, progress, processes)
        _say(("\n" if number else "") + dry_run_text(plan))


def _run_all(specs: list[RunSpec], quiet: bool) -> list[RunRecord]:
    """Do all runs, then print a table of them; those that failed are named at the end."""
    from vlbench.engine.runtime.interrupt import Interrupted
    from vlbench.report.tables.results import scoreboard

    records: list[RunRecord] = []
    failed: list[str] = []
    several = len({spec.seed for spec in specs}) > 1
    for number, spec in enumerate(specs, start=1):
        name = f"{spec.task} with {spec.model}" + (f", seed {spec.seed}" if several else "")
        try:
            records.append(_run_one(spec, quiet, f"run {number} of {len(specs)}: {name}"))
        except VlbenchError as error:
            # The other processes do not know of the error, so they cannot start the next run together with this one.
            alone = launched().size > 1 and not isinstance(error, SharedError)
            if alone or isinstance(error, Interrupted):
                raise
            failed.append(name)
            if launched().is_main:
                print_frames(error)
            _say(f"vlbench: {name}: {error.message}", err=True)
    if len(records) > 1:
        _say(f"\n{scoreboard(records)}")
    if failed:
        raise VlbenchError(
            f"{len(failed)} of {len(specs)} runs failed ({', '.join(failed)}), the others are saved: fix the errors "
            f"above, and the same command runs only what is missing",
            ExitCode.SOME_FAILED,
        )
    return records


def _run_one(spec: RunSpec, quiet: bool, name: str = "") -> RunRecord:
    """One run, in this process or in `num_processes` new ones, unless a launcher has started them."""
    if (spec.num_processes or 1) > 1 and not is_launched():
        from vlbench.engine.runtime.launch import launch
        from vlbench.records.folder import read_run

        record = read_run(Path(launch(_in_process, (spec, quiet, name), int(spec.num_processes or 1))))
    else:
        record = _run_here(spec, quiet, name)[0]
    if record.status != "done":
        raise VlbenchError(
            f"the run ended and its record says {record.status!r}: run the same command again to finish it",
            ExitCode.INTERNAL_ERROR,
        )
    return record


def _in_process(spec: RunSpec, quiet: bool, name: str) -> str:
    """One of several processes: do the run, return the folder of its record."""
    return str(_run_here(spec, quiet, name)[1].path)


def _run_here(spec: RunSpec, quiet: bool, name: str) -> tuple[RunRecord, RunFolder]:
    from vlbench.cli.progress import open_progress
    from vlbench.engine.evaluate import run as run_job
    from vlbench.report.tables.results import run_table

    with open_progress(quiet or not launched().is_main) as progress:
        if name:
            progress.say(name)
        record, folder = run_job(spec, progress)
    _say(run_table(record))
    _say(str(folder.path))
    if record.unanswered and launched().is_main:
        _say(_name_failed(record, folder), err=True)
    return record, folder


def _name_failed(record: RunRecord, folder: RunFolder) -> str:
    """The first five examples that could not be answered, with the reasons, and where the others are."""
    from vlbench.records.samples import failed_examples

    failed = failed_examples(folder.samples)
    named = first_five(f"{example} ({reason})" for example, reason in failed.items())
    return printable(
        f"vlbench: {len(failed):,} of {record.task.n_scored:,} examples could not be answered and count as wrong, "
        f"{named}: the column error of {folder.samples} holds all reasons"
    )


def _say(text: str, err: bool = False) -> None:
    """Print; of several processes only the first one does."""
    if launched().is_main:
        typer.echo(text, err=err)


def make_specs(flags: Mapping[str, object], config: Path | None = None, settings: Sequence[str] = ()) -> list[RunSpec]:
    """One spec per seed, model and task; `--set` wins over flags, and flags over the YAML file.

    Raises VlbenchError with all unknown keys, with their near miss, and wrong values at once.
    """
    values: dict[str, object] = {}
    for where, source in read_sources(RunSpec, flags, config, settings):
        _check_seeds({**flags, **source} if where == "--set" else source)
        for name, other in (("seed", "seeds"), ("seeds", "seed")):
            if name in source:
                values.pop(other, None)
        deep_update(values, source)
    require(values, "task", "nlvr2")
    require(values, "model", "cvlp")
    models, tasks = _several("model", values["model"]), _several("task", values["task"])
    seeds = _seeds(values.pop("seeds", None))
    return [
        parse(RunSpec, _values_of_one(values, model, task) | seed, "run")
        for seed in [{"seed": seed} for seed in seeds] or [{}]
        for model in models
        for task in tasks
    ]


def _values_of_one(values: Mapping[str, object], model: str, task: str) -> dict[str, object]:
    """The values for one of several runs: `{model}` and `{task}` in a checkpoint's path are its own."""
    checkpoint = values.get("checkpoint")
    if isinstance(checkpoint, str):
        checkpoint = checkpoint.replace("{model}", model).replace("{task}", task)
    return {**values, **({} if checkpoint is None else {"checkpoint": checkpoint}), "model": model, "task": task}


def _several(name: str, value: object) -> list[str]:
    """The names in a text with commas or a list; raises VlbenchError if one is empty or twice, or for anything else."""
    if isinstance(value, str):
        return split_models(value) if name == "model" else split_names(name, value)
    if not isinstance(value, list | tuple) or not value or not all(isinstance(one, str) and one for one in value):
        raise VlbenchError(f"{name} is {brief(value)}: expected a name, or a list of names")
    try:
        check_distinct(value)
    except ValueError as error:
        raise VlbenchError(f"--{name} {error}") from None
    return list(value)


def _check_seeds(source: Mapping[str, object]) -> None:
    """Raise VlbenchError if one source of values gives both `seed` and `seeds`."""
    seed, seeds = source.get("seed"), source.get("seeds")
    if seed is not None and seeds is not None:
        raise VlbenchError(f"seed {brief(seed)} and seeds {brief(seeds)} are the same setting: give --seed or --seeds")


def _seeds(value: object) -> list[int]:
    """The seeds in a number, a list of numbers, or a text such as `0,1,2`, each once."""
    if value is None:
        return []
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    try:
        numbers = [int(part) for part in parts if isinstance(part, int | str) and not isinstance(part, bool)]
    except ValueError:
        numbers = []
    if not numbers or len(numbers) < len(parts):
        raise VlbenchError(f"--seeds {brief(value)} are no whole numbers: give them as 0,1,2")
    return list(dict.fromkeys(numbers))
