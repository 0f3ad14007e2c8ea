"""`vlbench run`: flags, a YAML file and `--set` become one RunSpec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlbench.cli.spec import deep_update, read_config, read_settings, split_models, split_names
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.record import RunRecord
from vlbench.core.spec import RunSpec
from vlbench.core.validate import parse
from vlbench.engine.runtime.ranks import SharedError, check_size, is_launched, launched

if TYPE_CHECKING:
    from vlbench.records.folder import RunFolder

RECIPE_FLAGS = ("epochs", "steps", "lr", "batch_size")
"""Flags that are short for `--set train.NAME=...`."""


def run(
    ctx: typer.Context,
    task: Annotated[
        str | None, typer.Option(help="Task, or tasks with commas: nlvr2,vqa2; `vlbench list tasks`.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model, or models with commas: cvlp,vilt; hf:FOLDER; or path/to/file.py:Class.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="tiny, small, base; tiny on the world, else base.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="finetune, eval (a checkpoint with its own head), zero-shot or probe (linear).")
    ] = None,
    answer_by: Annotated[str | None, typer.Option(help="Zero-shot: text, or the likeliest of the candidates.")] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(help="Zero-shot: examples of the train split shown before each question.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Weights to begin with; none; shipped (default on the world); pretrained (of hf:). {model} and {task} "
            "in a path are the run's own."
        ),
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the real data; left out: the built-in world.")
    ] = None,
    tasks_dir: Annotated[Path | None, typer.Option(help="Folder with task folders of your own.")] = None,
    domain: Annotated[str | None, typer.Option(help="The world's look: plain or textured.")] = None,
    train_split: Annotated[str | None, typer.Option(help="Split to train on, or several with commas.")] = None,
    select_on: Annotated[str | None, typer.Option(help="Split that chooses the checkpoint, or none.")] = None,
    split: Annotated[str | None, typer.Option(help="Split to report.")] = None,
    limit: Annotated[float | None, typer.Option(help="Report on so many examples (500) or such a share (0.1).")] = None,
    limit_mode: Annotated[str | None, typer.Option(help="random (seeded) or head.")] = None,
    select_limit: Annotated[
        int | None, typer.Option(help="Select on at most so many examples, or of a ranking pictures (1,000).")
    ] = None,
    controls: Annotated[
        str | None, typer.Option(help="blind, or none; blind on the world unless told otherwise.")
    ] = None,
    rerank_k: Annotated[int | None, typer.Option(help="Retrieval: look at the K best by embeddings only.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Short for --set train.epochs=N.")] = None,
    steps: Annotated[int | None, typer.Option(help="Short for --set train.steps=N.")] = None,
    lr: Annotated[float | None, typer.Option(help="Short for --set train.lr=X.")] = None,
    batch_size: Annotated[
        str | None, typer.Option(help="Examples per optimizer step; auto: the recipe's, in parts that fit into memory.")
    ] = None,
    eval_batch_size: Annotated[int | None, typer.Option(help="Examples per forward when predicting.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Several, with commas: a run for each.")] = None,
    vocabulary: Annotated[Path | None, typer.Option(help="vocab.txt or tokenizer.json for the model.")] = None,
    answers: Annotated[
        Path | None, typer.Option(help="JSON list of answers to choose from; left out: the frequent ones.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; left out: the best there is.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between states to go on from; left out: 500.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    compile: Annotated[bool | None, typer.Option("--compile", help="Let torch compile the model.")] = None,
    activation_checkpointing: Annotated[
        bool | None, typer.Option("--activation-checkpointing", help="Train with less memory, by computing more.")
    ] = None,
    device_map: Annotated[str | None, typer.Option(help="auto: spread a model that writes over all devices.")] = None,
    quantize: Annotated[
        str | None, typer.Option(help="8bit or 4bit: round the weights of a model that writes.")
    ] = None,
    trust_remote_code: Annotated[
        bool | None, typer.Option("--trust-remote-code", help="Run code that the folder of a hf: model brings along.")
    ] = None,
    num_processes: Annotated[
        int | None,
        typer.Option(help="Processes that share the work; on GPUs one each."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that prepare batches, of each that works.")] = None,
    cache_pictures: Annotated[
        float | None, typer.Option(help="Keep resized pictures in the cache, up to so many GiB of them.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; left out: what suits the size.")] = None,
    log_with: Annotated[
        str | None, typer.Option(help="Trackers to tell as well, with commas: tensorboard,wandb.")
    ] = None,
    output_path: Annotated[Path | None, typer.Option(help="Where runs are kept.")] = None,
    resume: Annotated[
        bool | None, typer.Option("--resume/--no-resume", help="Go on with, or drop, earlier work.")
    ] = None,
    allow_partial: Annotated[bool | None, typer.Option("--allow-partial", help="Accept other counts; noted.")] = None,
    verify_data: Annotated[
        bool | None,
        typer.Option(
            "--verify-data", help="Hash all files of the data, images included; compare with the hashes kept at first."
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML with the same names; flags win over it.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="name=value, e.g. train.lr=3e-5; wins.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and how long it takes.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
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
    """
    given = {name: value for name, value in ctx.params.items() if value is not None}
    given["controls"] = _controls(controls)
    if log_with is not None:
        given["log_with"] = split_names("log-with", log_with)
    train = {name: given.pop(name, None) for name in RECIPE_FLAGS}
    if train["batch_size"] == "auto":
        train["batch_size"], given["auto_batch"] = None, True
    flags = {name: given.get(name) for name in RunSpec.model_fields if name != "train"}
    # Names nobody knows shall not come out after an hour's work on the names before them.
    specs = _possible(make_specs(flags, train, config, settings or [], _seeds(seed, seeds)))
    if dry_run:
        _rehearse(specs, quiet)
    elif len(specs) == 1:
        _run_one(specs[0], quiet)
    else:
        _run_all(specs, quiet)


def _possible(specs: list[RunSpec]) -> list[RunSpec]:
    """The specs whose model can answer their task; with several asked for, the others are named and left out.

    Raises:
        VlbenchError: names nobody knows, or nothing is left.
    """
    from vlbench.engine.job import rejection

    reasons = [rejection(spec) for spec in specs]
    if all(reasons) and reasons[0]:
        raise reasons[0]
    for reason in filter(None, reasons):
        _say(f"left out: {reason.message}", err=True)
    return [spec for spec, reason in zip(specs, reasons, strict=True) if not reason]


def _rehearse(specs: list[RunSpec], quiet: bool) -> None:
    """Say of each run what it would do."""
    from vlbench.cli.dry_run import rehearsal_text
    from vlbench.cli.progress import open_progress
    from vlbench.engine.dry_run import rehearse

    for number, spec in enumerate(specs):
        if is_launched():
            check_size(launched().size, spec.num_processes)
        processes = launched().size if is_launched() else spec.num_processes or 1
        with open_progress(quiet or not launched().is_main) as progress:
            found = rehearse(spec, progress, processes)
        _say(("\n" if number else "") + rehearsal_text(found))


def _run_all(specs: list[RunSpec], quiet: bool) -> None:
    """Do all that can be done, then a table of it; what failed is named at the end."""
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
            # Other processes that do not know of the error cannot go on to the next run with this one.
            alone = launched().size > 1 and not isinstance(error, SharedError)
            if alone or isinstance(error, Interrupted):
                raise
            failed.append(name)
            _say(f"vlbench: {name}: {error.message}", err=True)
    if len(records) > 1:
        _say(f"\n{scoreboard(records)}")
    if failed:
        raise VlbenchError(
            f"{len(failed)} of {len(specs)} runs failed ({', '.join(failed)}), the others are saved: mend what is "
            f"said above, and the same command does only what is missing",
            ExitCode.SOME_FAILED,
        )


def _run_one(spec: RunSpec, quiet: bool, name: str = "") -> RunRecord:
    """One run here, or in as many processes of our own as are asked for where no launcher has started some."""
    if (spec.num_processes or 1) > 1 and not is_launched():
        from vlbench.engine.runtime.launch import launch
        from vlbench.records.folder import read_run

        return read_run(Path(launch(_in_process, (spec, quiet, name), int(spec.num_processes or 1))))
    return _run_here(spec, quiet, name)[0]


def _in_process(spec: RunSpec, quiet: bool, name: str) -> str:
    """One of several processes: where the record lies."""
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
    return record, folder


def _say(text: str, err: bool = False) -> None:
    """Of several processes only the first one prints."""
    if launched().is_main:
        typer.echo(text, err=err)


def make_specs(
    flags: Mapping[str, object],
    train: Mapping[str, object],
    config: Path | None,
    settings: list[str],
    seeds: Sequence[int] = (),
) -> list[RunSpec]:
    """One spec per seed, model and task, from the YAML file, over it the flags, over them `--set`.

    seeds: those asked for by `--seeds`; none for the one that the values have.

    Raises:
        VlbenchError: unknown keys with their near miss, wrong values; all at once.
    """
    values: dict[str, object] = read_config(config) if config else {}
    deep_update(values, {name: value for name, value in flags.items() if value is not None})
    deep_update(values, {"train": {name: value for name, value in train.items() if value is not None}})
    deep_update(values, read_settings(settings))
    for name, example in (("task", "nlvr2"), ("model", "cvlp")):
        if name not in values:
            raise VlbenchError(f"--{name} is missing: name one, e.g. --{name} {example} (`vlbench list {name}s`)")
    models, tasks = split_models(str(values["model"])), split_names("task", str(values["task"]))
    chances = [{"seed": seed} for seed in seeds] or [{}]
    return [
        parse(RunSpec, _of(values, model, task) | chance, "run")
        for chance in chances
        for model in models
        for task in tasks
    ]


def _of(values: Mapping[str, object], model: str, task: str) -> dict[str, object]:
    """The values for one of several runs: `{model}` and `{task}` in a checkpoint's path are its own."""
    checkpoint = values.get("checkpoint")
    places = (
        {"checkpoint": checkpoint.replace("{model}", model).replace("{task}", task)}
        if isinstance(checkpoint, str)
        else {}
    )
    return {**values, **places, "model": model, "task": task}


def _seeds(seed: int | None, text: str | None) -> list[int]:
    """`0,1,2` as numbers, each once."""
    if text is None:
        return []
    if seed is not None:
        raise VlbenchError(f"--seed {seed} and --seeds {text} say the same thing twice: give one of them")
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise VlbenchError(f"--seeds {text} are no whole numbers: give them as 0,1,2") from None


def _controls(text: str | None) -> list[str] | None:
    if text is None:
        return None
    if not text.strip():
        raise VlbenchError(f"--controls {text!r} names none: give names of controls, or none for no control")
    return [] if text == "none" else split_names("controls", text)
