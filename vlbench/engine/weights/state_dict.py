"""Tensors out of files: safetensors, or PyTorch's format without the code that its pickles may carry."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import safe_globals

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.data.files.pickles import more_than_weights
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine.weights.files import notes, shards

VOCABULARY = "vocabulary_sha256"
"""What vlbench notes in its weights beside the names of model and size."""
_NUMBER = cast(Callable[..., object], np.float64(0).__reduce__()[0])
"""How numpy makes a number; private, and its module has had two names."""
_HARMLESS: tuple[Callable[..., object] | tuple[Callable[..., object], str], ...] = (
    Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.bool_, np.int32, np.int64, np.float32, np.float64)),
    *((_NUMBER, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
)
"""What trainings keep beside the tensors, and what calls nothing when it is read: arguments and numpy's numbers."""
_REASON = 160
"""Characters of a library's own words that a sentence can hold."""


def read_state(weights: Path) -> dict[str, object]:
    """What a file, or the shards of an index, hold by name. PyTorch's files may hold more than tensors, and nested.

    Raises:
        VlbenchError: exit 6, a file is damaged, of no such format, or holds code; none of it is run.
    """
    state: dict[str, object] = {}
    for shard in shards(weights):
        state |= read_safetensors(shard) if shard.suffix == ".safetensors" else _read_torch(shard)
    return state


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        VlbenchError: exit 6, it is none, or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise VlbenchError(
            f"{path} does not load as safetensors ({error}): give a file that vlbench or safetensors wrote",
            ExitCode.WEIGHTS,
        ) from None


def written_by(weights: Path) -> str:
    """The model and size, `cvlp-tiny`, that vlbench notes in its safetensors files; empty for others."""
    noted = notes(weights)
    return f"{noted['model']}-{noted['size']}" if {"model", "size"} <= noted.keys() else ""


def brought_vocabulary(weights: Path) -> str:
    """What identifies the vocabulary that weights were trained with: as vlbench notes it, or by the tokenizer beside.

    Empty where neither is there.

    Raises:
        DataError: the tokenizer beside them is damaged.
    """
    noted, beside = notes(weights).get(VOCABULARY, ""), weights.with_name("tokenizer.json")
    if noted or not beside.is_file():
        return noted
    return TextEncoder.from_file(beside, 2).vocabulary_sha256  # of any length: it does not count


def _read_torch(path: Path) -> dict[str, object]:
    try:
        with warnings.catch_warnings(), safe_globals([*_HARMLESS]):
            warnings.simplefilter("ignore")  # about the pickle's age, of which the user can do nothing
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # over damaged bytes the unpickler raises whatever comes
        raise VlbenchError(f"{path} {_fault(error)}", ExitCode.WEIGHTS) from None
    if not isinstance(content, dict):
        raise VlbenchError(
            f"{path} holds a {type(content).__name__} where tensors by name are expected: give a file of weights",
            ExitCode.WEIGHTS,
        )
    return {name: value for name, value in content.items() if isinstance(name, str)}


def _fault(error: Exception) -> str:
    if code := more_than_weights(error):
        return code
    said = " ".join(str(error).split())
    if "TorchScript" in said:
        return (
            "is a TorchScript archive, a program that holds its weights, and nothing of it was run: give the weights "
            "alone, as torch.save(torch.jit.load(FILE).state_dict(), OTHER) writes them"
        )
    told = said[:_REASON] if isinstance(error, OSError | RuntimeError) and said else type(error).__name__
    return (
        f"does not load as PyTorch weights ({told}), and nothing of it was run: it is damaged or of another format, "
        f"fetch it again"
    )
