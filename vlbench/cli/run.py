"""`vlbench run`: flags, a YAML file and `--set` become one RunSpec."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlbench.cli.options import Config, Quiet, Settings, with_options_of
from vlbench.cli.spec import deep_update, read_sources, require, split_models, split_names
from vlbench.core.errors import ExitCode, VlbenchError, first_five, printable
from vlbench.core.options import check_distinct
from vlbench.core.progress import Progress
from vlbench.core.record import RunRecord
from vlbench.core.spec import RunSpec
from vlbench.core.user_code import print_frames
from vlbench.core.validate import brief, parse
from vlbench.engine.runtime.ranks import SharedError, check_size, is_launched, launched

if TYPE_CHECKING:
    from vlbench.records.folder import RunFolder

JOBS, AUTO = "VLBENCH_JOBS", "auto"
MOST_JOBS = 4096


@with_options_of(RunSpec)
def run(
    given: Mapping[str, object],
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N,...", help="Several seeds with commas: one run for each.", rich_help_panel="What to run"
        ),
    ] = None,
    jobs: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Trials (runs and their controls) at once, each in a process of its own, with the same results. auto: "
            "as many as the cores or GPUs and the memory suffice for. [default: $VLBENCH_JOBS, else auto]",
            rich_help_panel="Machine",
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
      vlbench run --task nlvr2 --model cvlp --seeds 0,1,2,3 --jobs 4
      vlbench run --task nlvr2 --model cvlp --num-processes 2
      torchrun --nproc-per-node 2 -m vlbench run --task nlvr2 --model cvlp
    \b
    The exit code is 8 if some runs failed, or some examples with --on-error record, and the others are saved.
    """
    flags = {**given, **{name: value for name, value in (("seeds", seeds), ("jobs", jobs)) if value is not None}}
    # All names are checked before the first run starts, not after an hour of work.
    specs, wanted = make_runs(flags, config, settings or [])
    specs = _runnable(specs)
    at_once = _jobs(wanted, specs)
    if dry_run:
        _print_plans(specs, quiet)
        return
    records = _run_all(specs, quiet, at_once) if len(specs) > 1 else [_run_one(specs[0], quiet, jobs=at_once)]
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


def _jobs(wanted: object, specs: Sequence[RunSpec]) -> int:
    """The number of trials at once. wanted: what flags, YAML or `--set` say; None for `$VLBENCH_JOBS`, else auto.

    Raises VlbenchError if it is no such number, or has to be 1.
    """
    value = os.environ.get(JOBS) or AUTO if wanted is None else wanted
    if value == AUTO:
        from vlbench.engine.jobs import fitting_jobs

        return 1 if is_launched() else fitting_jobs(specs)
    number = int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else 0
    if not 1 <= number <= MOST_JOBS or isinstance(value, bool):
        name = f"${JOBS}" if wanted is None else "--jobs"
        raise VlbenchError(f"{name} is {brief(value)}: expected a number from 1 to {MOST_JOBS:,}, or {AUTO}")
    several = is_launched() or any((spec.num_processes or 1) > 1 for spec in specs)
    if several and number > 1 and wanted is not None:
        raise VlbenchError(f"--jobs {number} is not for runs that share several processes: leave out one of the two")
    return 1 if several else number


def _run_all(specs: list[RunSpec], quiet: bool, jobs: int) -> list[RunRecord]:
    """Do all runs, then print a table of them; those that failed are named at the end."""
    from vlbench.report.tables.results import scoreboard

    several = len({spec.seed for spec in specs}) > 1
    names = [f"{spec.task} with {spec.model}" + (f", seed {spec.seed}" if several else "") for spec in specs]
    run = _run_side_by_side if jobs > 1 else _run_in_turn
    records = run(specs, names, quiet, jobs)
    failed = [name for number, name in enumerate(names) if number not in records]
    if len(records) > 1:
        _say(f"\n{scoreboard([records[number] for number in sorted(records)])}")
    if failed:
        raise VlbenchError(
            f"{len(failed)} of {len(specs)} runs failed ({', '.join(failed)}), the others are saved: fix the errors "
            f"above, and the same command runs only what is missing",
            ExitCode.SOME_FAILED,
        )
    return [records[number] for number in sorted(records)]


def _run_in_turn(specs: list[RunSpec], names: list[str], quiet: bool, jobs: int) -> dict[int, RunRecord]:
    """Do the runs in this process, one after the other; returns the records of those that did not fail."""
    from vlbench.engine.runtime.interrupt import Interrupted

    records: dict[int, RunRecord] = {}
    for number, (spec, name) in enumerate(zip(specs, names, strict=True)):
        try:
            records[number] = _run_one(spec, quiet, f"run {number + 1} of {len(specs)}: {name}", jobs)
        except VlbenchError as error:
            # The other processes do not know of the error, so they cannot start the next run together with this one.
            alone = launched().size > 1 and not isinstance(error, SharedError)
            if alone or isinstance(error, Interrupted):
                raise
            if launched().is_main:
                print_frames(error)
            _say(f"vlbench: {name}: {error.message}", err=True)
    return records


def _run_side_by_side(specs: list[RunSpec], names: list[str], quiet: bool, jobs: int) -> dict[int, RunRecord]:
    """Do the runs in processes of their own, as many at once as there are jobs, and print them in their order.

    Returns the records of those that did not fail.
    """
    from vlbench.cli.progress import open_progress, progress_of_run
    from vlbench.engine.jobs import gpu_environments
    from vlbench.engine.runtime.calls import Call, side_by_side
    from vlbench.records.folder import RunFolder

    processes = min(jobs, len(specs))
    own = jobs // processes
    folders: dict[int, RunFolder] = {}
    try:
        with open_progress(quiet) as progress, ExitStack() as stack:
            calls = [
                Call(_run_in_process, (spec, own, (processes - 1) * own), progress_of_run(progress, name))
                for spec, name in zip(specs, names, strict=True)
            ]
            outcomes = stack.enter_context(closing(side_by_side(calls, gpu_environments(processes, specs[0].device))))
            for number, outcome in outcomes:
                if outcome.exit_code == ExitCode.OK:
                    folders[number] = RunFolder.open(Path(str(outcome.result)))
                else:
                    _say(f"vlbench: {names[number]}: {outcome.message}", err=True)
    finally:  # what is finished is shown after an interruption, too
        records = {number: _show_run(folders[number]) for number in sorted(folders)}
    return records


def _run_in_process(progress: Progress, spec: RunSpec, jobs: int, others: int) -> str:
    """One of several runs, in a process of its own; returns the run's folder.

    others: the number of simultaneous trials of the other runs.
    """
    from vlbench.engine.evaluate import run as run_job

    progress.say("starts")
    record, folder = run_job(spec, progress, jobs, others)
    _check_done(record)
    return str(folder.path)


def _run_one(spec: RunSpec, quiet: bool, name: str = "", jobs: int = 1) -> RunRecord:
    """One run, in this process or in `num_processes` new ones, unless a launcher has started them."""
    if (spec.num_processes or 1) > 1 and not is_launched():
        from vlbench.engine.runtime.launch import launch
        from vlbench.records.folder import read_run

        record = read_run(Path(launch(_in_process, (spec, quiet, name), int(spec.num_processes or 1))))
    else:
        record = _run_here(spec, quiet, name, jobs)[0]
    _check_done(record)
    return record


def _check_done(record: RunRecord) -> None:
    if record.status != "done":
        raise VlbenchError(
            f"the run ended and its record says {record.status!r}: run the same command again to finish it",
            ExitCode.INTERNAL_ERROR,
        )


def _in_process(spec: RunSpec, quiet: bool, name: str) -> str:
    """One of several processes: do the run, return the folder of its record."""
    return str(_run_here(spec, quiet, name)[1].path)


def _run_here(spec: RunSpec, quiet: bool, name: str, jobs: int = 1) -> tuple[RunRecord, RunFolder]:
    from vlbench.cli.progress import open_progress
    from vlbench.engine.evaluate import run as run_job

    with open_progress(quiet or not launched().is_main) as progress:
        if name:
            progress.say(name)
        record, folder = run_job(spec, progress, jobs)
    _print_run(record, folder)
    return record, folder


def _show_run(folder: RunFolder) -> RunRecord:
    """Print a finished run; returns its record."""
    from vlbench.records.folder import read_run

    record = read_run(folder.path)
    _print_run(record, folder)
    return record


def _print_run(record: RunRecord, folder: RunFolder) -> None:
    """Print the table of a run and its folder, and examples that could not be answered."""
    from vlbench.report.tables.results import run_table

    _say(run_table(record))
    _say(str(folder.path))
    if record.unanswered and launched().is_main:
        _say(_name_failed(record, folder), err=True)


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
    """One spec per seed, model and task; see `make_runs`."""
    return make_runs(flags, config, settings)[0]


def make_runs(
    flags: Mapping[str, object], config: Path | None = None, settings: Sequence[str] = ()
) -> tuple[list[RunSpec], object]:
    """One spec per seed, model and task, and the wanted number of jobs; None where nothing says it.

    `--set` wins over flags, and flags over the YAML file.
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
    seeds, jobs = _seeds(values.pop("seeds", None)), values.pop("jobs", None)
    specs = [
        parse(RunSpec, _values_of_one(values, model, task) | seed, "run")
        for seed in [{"seed": seed} for seed in seeds] or [{}]
        for model in models
        for task in tasks
    ]
    return specs, jobs


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
