"""`vlbench pretrain`: flags, a YAML file and `--set` become one PretrainSpec."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from vlbench.cli.options import Config, Quiet, Settings, with_options_of
from vlbench.cli.spec import deep_update, read_sources, require
from vlbench.core.errors import VlbenchError
from vlbench.core.spec import PretrainSpec
from vlbench.core.validate import parse
from vlbench.engine.runtime.ranks import is_launched, launched


@with_options_of(PretrainSpec)
def pretrain(
    given: Mapping[str, object], config: Config = None, settings: Settings = None, quiet: Quiet = False
) -> None:
    """Pretrain a model on images and captions; print the folder of its weights, tokenizer and card.

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
    values: dict[str, object] = {}
    for _, source in read_sources(PretrainSpec, given, config, settings or []):
        deep_update(values, source)
    if "," in str(values.get("model", "")):
        raise VlbenchError(f"--model {values['model']}: one model is pretrained at a time, name one")
    require(values, "model", "cvlp")
    spec = parse(PretrainSpec, values, "pretrain")
    if (spec.num_processes or 1) > 1 and not is_launched():
        from vlbench.engine.runtime.launch import launch

        folder = launch(_pretrained, (spec, quiet), int(spec.num_processes or 1))
    else:
        folder = _pretrained(spec, quiet)
    if launched().is_main:
        typer.echo(folder)


def _pretrained(spec: PretrainSpec, quiet: bool) -> str:
    """Pretrain in this process, together with those that share its work; returns the folder of the weights."""
    from vlbench.cli.progress import open_progress
    from vlbench.engine.pretraining.pretrain import pretrain as pretrain_model

    with open_progress(quiet or not launched().is_main) as progress:
        return str(pretrain_model(spec, progress))
