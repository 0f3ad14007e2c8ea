"""Tensors out of files: safetensors, or PyTorch's format without the code that its pickles may carry."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.engine.weights import shards

_NAMED = re.compile(r"GLOBAL ([\w.]+)")
"""How torch says which name of Python's it refused to look up."""
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
    if weights.suffix != ".safetensors":
        return ""
    with safe_open(weights, "pt") as file:
        notes = file.metadata() or {}
    return f"{notes['model']}-{notes['size']}" if {"model", "size"} <= notes.keys() else ""


def _read_torch(path: Path) -> dict[str, object]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's age, of which the user can do nothing
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, EOFError, RuntimeError, LookupError, TypeError, ValueError) as error:
        raise VlbenchError(f"{path} {_fault(error)}", ExitCode.WEIGHTS) from None
    if not isinstance(content, dict):
        raise VlbenchError(
            f"{path} holds a {type(content).__name__} where tensors by name are expected: give a file of weights",
            ExitCode.WEIGHTS,
        )
    return {name: value for name, value in content.items() if isinstance(name, str)}


def _fault(error: Exception) -> str:
    said = " ".join(str(error).split())
    if named := _NAMED.search(said):
        return (
            f"holds more than weights (Python's {named[1]}), of which nothing was run: "
            f"give a file with the tensors alone, as torch.save(model.state_dict(), FILE) writes it"
        )
    told = said[:_REASON] if isinstance(error, OSError | RuntimeError) and said else type(error).__name__
    return (
        f"does not load as PyTorch weights ({told}), and nothing of it was run: it is damaged or of another format, "
        f"fetch it again"
    )
