"""Options that only some models take in some modes: refused before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from vlbench.core.cards import ModelCard, TaskCard
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.examples import Example
from vlbench.core.spec import RunSpec
from vlbench.core.splits import joined
from vlbench.engine.weights.files import PRETRAINED


def check_own_code(spec: RunSpec, card: ModelCard) -> None:
    """Code that comes with a model runs only where the user says so.

    Raises:
        VlbenchError: the flag is missing, or is for another model.
    """
    if card.own_code and not spec.trust_remote_code:
        raise VlbenchError(
            f"{card.name} comes with code of its own (auto_map in its config.json), which is not run unless you trust "
            f"it: read it, then give --trust-remote-code"
        )
    if spec.trust_remote_code and not card.pretrained:
        raise VlbenchError(
            f"--trust-remote-code is for models of transformers (hf:), not for {card.name}: leave it out"
        )


def check_adapters(spec: RunSpec, card: ModelCard) -> None:
    """Low-rank adapters are trained within models of transformers, by peft. spec: with its recipe resolved.

    Raises:
        VlbenchError: another model or mode, or no peft.
    """
    rank = spec.train.lora_rank
    if not rank:
        return
    if spec.mode != "finetune":
        raise VlbenchError(f"train.lora_rank {rank} is for --mode finetune, not for --mode {spec.mode}: leave it out")
    if not card.pretrained:
        raise VlbenchError(
            f"train.lora_rank {rank} is for models of transformers (hf:), not for {card.name}: leave it out, and all "
            f"of its weights are trained"
        )
    if find_spec("peft") is None:
        raise VlbenchError(f"train.lora_rank {rank} needs peft, which is not installed: pip install 'vlbench[lora]'")


def check_scales(spec: RunSpec) -> None:
    """A limit of random image sizes needs the sizes. spec: with its recipe resolved.

    Raises:
        VlbenchError: train.long_side is given without train.short_side.
    """
    if spec.mode == "finetune" and spec.train.long_side is not None and spec.train.short_side is None:
        raise VlbenchError(
            f"train.long_side {spec.train.long_side} limits the random sizes that train.short_side asks for, and it "
            f"asks for none: give both, or leave it out"
        )


def check_batch_norm(spec: RunSpec) -> None:
    """Batch norms that normalise by the batch need each step in one forward pass. spec: with its recipe resolved.

    Raises:
        VlbenchError: a step is cut into several.
    """
    if spec.mode != "finetune" or spec.train.batch_norm != "live":
        return
    accumulation = spec.train.accumulation or 1
    if accumulation > 1 or spec.auto_batch:
        cut = f"train.accumulation {accumulation}" if accumulation > 1 else "--batch-size auto"
        raise VlbenchError(
            f"train.batch_norm live needs a whole optimizer step in one forward pass of each process, which {cut} may "
            f"cut into several: give --batch-size a number and --set train.accumulation=1, or leave train.batch_norm "
            f"out"
        )


def check_negatives(spec: RunSpec, task: TaskCard, card: ModelCard, train: Sequence[Example[Any]]) -> None:
    """Two towers learn a ranking from the other images of an optimizer step. spec: with its recipe resolved.

    Raises:
        VlbenchError: the batch size is 1, or all texts of the training splits belong to one image.
    """
    if spec.mode != "finetune" or task.output != "rank" or card.ranks_by != "dual":
        return
    what = f"{card.name} learns {task.name} by contrasting the images of an optimizer step"
    if spec.train.batch_size == 1:
        raise VlbenchError(f"{what}, and --batch-size 1 leaves one image alone: give 2 or more")
    images = (example.reference.image for example in train)
    first = next(images, None)
    if first is not None and all(image == first for image in images):
        split = joined(spec.train_split)
        raise VlbenchError(f"{what}, and all texts of {split} belong to one image: train on more images")


def check_placing(spec: RunSpec, card: ModelCard) -> None:
    """A model that writes can be spread over devices or rounded, where its own weights answer untrained.

    spec: with `checkpoint` and `answer_by` resolved.

    Raises:
        VlbenchError: another model, mode or checkpoint; a library or a device that is not there (exit 6).
    """
    asked = {"--device-map": spec.device_map, "--quantize": spec.quantize}
    given = " ".join(f"{flag} {value}" for flag, value in asked.items() if value)
    if not given:
        return
    if not card.pretrained or spec.answer_by is None or spec.mode == "finetune":
        raise VlbenchError(
            f"{given} is for models of transformers that write (hf:), in --mode zero-shot or eval, not for "
            f"{card.name} in --mode {spec.mode}: leave it out"
        )
    if spec.checkpoint != PRETRAINED:
        raise VlbenchError(
            f"{given} is for weights that transformers loads, not for --checkpoint {spec.checkpoint}: leave one out"
        )
    if spec.device_map and spec.device:
        raise VlbenchError(f"--device-map {spec.device_map} chooses devices, and --device {spec.device} too: give one")
    if spec.quantize:
        _check_quantizes(spec.quantize, spec.device)


def _check_quantizes(bits: str, device: str | None) -> None:
    if find_spec("bitsandbytes") is None:
        raise VlbenchError(
            f"--quantize {bits} needs bitsandbytes, which is not installed: pip install 'vlbench[quantize]'",
            ExitCode.WEIGHTS,
        )
    import torch  # no plan needs it but this one

    if device in ("cpu", "mps") or not torch.cuda.is_available():
        raise VlbenchError(
            f"--quantize {bits} needs a GPU that CUDA knows, and none is used: leave it out, or give --dtype bfloat16",
            ExitCode.WEIGHTS,
        )
