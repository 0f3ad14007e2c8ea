"""Read tensors from files: safetensors, or PyTorch's format without running the code that its pickles may hold."""

from __future__ import annotations

import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import safe_globals

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.data.files.foreign import reading
from vlbench.data.files.pickles import check_sizes, more_than_weights
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine.weights.files import read_metadata, shard_files

VOCABULARY = "vocabulary_sha256"
"""Metadata key of the hash of the vocabulary that weights were trained with; `model` and `size` are the other keys."""
_NUMBER = cast(Callable[..., object], np.float64(0).__reduce__()[0])
"""The private function that unpickles a numpy scalar; its module has had two names."""
_HARMLESS: tuple[Callable[..., object] | tuple[Callable[..., object], str], ...] = (
    Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.bool_, np.int32, np.int64, np.float32, np.float64)),
    *((_NUMBER, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
)
"""Types that checkpoints hold next to the tensors and that run no code when they are read: arguments, numpy scalars."""
_MAX_REASON = 160
"""Characters of a library's own error that a message quotes."""
_MOST_TIMES = 16
"""How much larger than the model its file may be: an optimizer's state and a momentum encoder make it 4 times, a type
of half the width doubles that."""
_ANY_MODEL = 1 << 30
"""Bytes that are read for the smallest model too."""


def read_state(weights: Path, model: Mapping[str, Tensor] | None = None) -> dict[str, object]:
    """The content of a file, or of the shards of an index, by name. model: the tensors of the model that it is for.

    PyTorch files may hold other values than tensors, and nested ones.

    Raises:
        VlbenchError: exit 6, a file is damaged, of another format, far larger than the model, or holds code; none of
            the code is run.
    """
    files = shard_files(weights)
    if model is not None:
        _check_size(weights, sum(file.stat().st_size for file in files), sum(value.nbytes for value in model.values()))
    state: dict[str, object] = {}
    for shard in files:
        state |= read_safetensors(shard) if shard.suffix == ".safetensors" else _read_torch(shard)
    return state


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        VlbenchError: exit 6, the file is of another format or damaged.
    """
    remedy = "give a file that vlbench or safetensors wrote"
    with reading(path, "does not load as safetensors", remedy, ExitCode.WEIGHTS):
        return load_file(path)


def written_by(weights: Path) -> str:
    """The model and size, such as `cvlp-tiny`, in the metadata of a file that vlbench wrote; empty for other files."""
    metadata = read_metadata(weights)
    return f"{metadata['model']}-{metadata['size']}" if {"model", "size"} <= metadata.keys() else ""


def vocabulary_of(weights: Path) -> str:
    """The hash of the vocabulary that weights were trained with, empty where it is unknown.

    It is read from the metadata, else computed from the tokenizer next to the weights.

    Raises:
        DataError: the tokenizer next to the weights is damaged.
    """
    recorded, tokenizer = read_metadata(weights).get(VOCABULARY, ""), weights.with_name("tokenizer.json")
    if recorded or not tokenizer.is_file():
        return recorded
    return TextEncoder.from_file(tokenizer, 2).vocabulary_sha256  # the length of texts does not change the hash


def _check_size(weights: Path, size: int, needed: int) -> None:
    """Check the bytes of files against those of the model's tensors before any is read."""
    if size > max(_MOST_TIMES * needed, _ANY_MODEL):
        raise VlbenchError(
            f"{weights} has {size:,} bytes where the model's tensors have {needed:,}: give weights of this model, or "
            f"its weights without the state of an optimizer",
            ExitCode.WEIGHTS,
        )


def _read_torch(path: Path) -> dict[str, object]:
    try:
        with warnings.catch_warnings(), safe_globals([*_HARMLESS]):
            warnings.simplefilter("ignore")  # about old pickle formats, which the user cannot change
            if zipfile.is_zipfile(path):  # not of the older format
                check_sizes(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # for damaged bytes the unpickler raises any type of error
        raise VlbenchError(f"{path} {_fault(error)}", ExitCode.WEIGHTS) from error
    if not isinstance(content, dict):
        raise VlbenchError(
            f"{path} holds a {type(content).__name__} where tensors by name are expected: give a file of weights",
            ExitCode.WEIGHTS,
        )
    return {name: value for name, value in content.items() if isinstance(name, str)}


def _fault(error: Exception) -> str:
    """What is wrong with a file that did not load, as the end of a sentence."""
    if code := more_than_weights(error):
        return code
    text = " ".join(str(error).split())
    if "TorchScript" in text:
        return (
            "is a TorchScript archive, a program that holds its weights, and nothing of it was run: give the weights "
            "alone, as torch.save(torch.jit.load(FILE).state_dict(), OTHER) writes them"
        )
    is_said = isinstance(error, OSError | RuntimeError | ValueError) and text
    reason = text[:_MAX_REASON] if is_said else type(error).__name__
    return (
        f"does not load as PyTorch weights ({reason}), and nothing of it was run: it is damaged or of another format, "
        f"fetch it again"
    )
