"""`vlbench pretrain`: flags, a YAML file and `--set` become one PretrainSpec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlbench.cli.spec import deep_update, read_config, read_settings, read_towers, split_names
from vlbench.core.errors import VlbenchError
from vlbench.core.spec import PretrainSpec
from vlbench.core.validate import parse
from vlbench.engine.runtime.ranks import is_launched, launched

RECIPE_FLAGS = ("epochs", "steps", "lr", "batch_size")
"""Flags that are short for `--set train.NAME=...`."""


def pretrain(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Option(help="Model, e.g. cvlp; `vlbench list models` shows all.")] = None,
    size: Annotated[str | None, typer.Option(help="tiny, small, base; tiny on the world, else base.")] = None,
    task: Annotated[str | None, typer.Option(help="Tasks whose captions or questions are learned from.")] = None,
    texts: Annotated[
        list[Path] | None, typer.Option(help="LXMERT's file of captions and questions; may be repeated.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Their split, or several with commas; left out: train.")] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the real data; left out: the built-in world.")
    ] = None,
    tasks_dir: Annotated[Path | None, typer.Option(help="Folder with task folders of your own.")] = None,
    domain: Annotated[str | None, typer.Option(help="The world's look: plain or textured.")] = None,
    objectives: Annotated[str | None, typer.Option(help="Of the model's own, e.g. mlm,itm; left out: all.")] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Weights to start from: own, official or shipped; left out: random values."),
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="Networks that single towers start from: vision=hf:NAME,text=FOLDER.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Short for --set train.epochs=N.")] = None,
    steps: Annotated[int | None, typer.Option(help="Short for --set train.steps=N.")] = None,
    lr: Annotated[float | None, typer.Option(help="Short for --set train.lr=X.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pairs per optimizer step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    vocabulary: Annotated[Path | None, typer.Option(help="vocab.txt or tokenizer.json for the model.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between states to go on from.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; left out: the best there is.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    num_processes: Annotated[int | None, typer.Option(help="Processes that share the work, on GPUs one each.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that prepare batches.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; left out: what suits the size.")] = None,
    log_with: Annotated[
        str | None, typer.Option(help="Trackers to tell as well, with commas: tensorboard,wandb.")
    ] = None,
    output_path: Annotated[Path | None, typer.Option(help="Where pretrained weights are kept.")] = None,
    resume: Annotated[
        bool | None, typer.Option("--resume/--no-resume", help="Go on with, or drop, earlier work.")
    ] = None,
    allow_partial: Annotated[bool | None, typer.Option("--allow-partial", help="Accept other counts; noted.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML with the same names; flags win over it.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="name=value, e.g. options.key_drop=paper; wins.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Pretrain a model on pictures and captions; prints the folder with its weights, tokenizer and card.

    \b
    Examples:
      vlbench pretrain --model cvlp
      vlbench pretrain --model vilt --objectives mlm,itm --steps 5000
      vlbench pretrain --model lxmert --task coco_retrieval,vqa2,gqa
      vlbench pretrain --model lxmert --texts mscoco_train.json --texts vgnococo.json --data-root DATA
      vlbench pretrain --model cvlp --size base --task coco_retrieval --data-root DATA --batch-size 256
      vlbench pretrain --model cvlp --num-processes 2
      vlbench pretrain --model cvlp --checkpoint shipped --steps 500
      vlbench pretrain --model vilt --size base --init vision=hf:google/vit-base-patch32-384 --data-root DATA
    """
    given = {name: value for name, value in ctx.params.items() if value is not None}
    for name in ("task", "objectives", "log_with"):
        if isinstance(given.get(name), str):
            given[name] = split_names(name.replace("_", "-"), str(given[name]))
    if init is not None:
        given["init"] = read_towers(init)
    values: dict[str, object] = read_config(config) if config else {}
    deep_update(values, {name: given[name] for name in PretrainSpec.model_fields if name in given})
    deep_update(values, {"train": {name: given[name] for name in RECIPE_FLAGS if name in given}})
    deep_update(values, read_settings(settings or []))
    if "," in str(values.get("model", "")):
        raise VlbenchError(f"--model {values['model']}: one model is pretrained at a time, name one")
    if "model" not in values:
        raise VlbenchError("--model is missing: name one, e.g. --model cvlp (`vlbench list models`)")
    spec = parse(PretrainSpec, values, "pretrain")

    if (spec.num_processes or 1) > 1 and not is_launched():
        from vlbench.engine.runtime.launch import launch

        folder = launch(_pretrained, (spec, quiet), int(spec.num_processes or 1))
    else:
        folder = _pretrained(spec, quiet)
    if launched().is_main:
        typer.echo(folder)


def _pretrained(spec: PretrainSpec, quiet: bool) -> str:
    """The folder of the weights, made by this process and those that share its work."""
    from vlbench.cli.progress import open_progress
    from vlbench.engine.pretraining.pretrain import pretrain as pretrain_model

    with open_progress(quiet or not launched().is_main) as progress:
        return str(pretrain_model(spec, progress))
