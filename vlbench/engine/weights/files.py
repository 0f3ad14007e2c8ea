"""The files that `--checkpoint` stands for: their location, hash, answers and tokenizer.

Does not import torch: the fingerprint of a run needs these before torch is loaded.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import BinaryIO

from safetensors import safe_open

from vlbench import catalog
from vlbench.core.cards import ModelCard
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.data.cache.folder import files_sha256
from vlbench.data.json.document import read_json
from vlbench.data.text.answers import ANSWERS_FILE, read_answers, transformers_answers

PRETRAINED = "pretrained"
"""The value of a spec's `checkpoint` for the weights that a transformers model comes with."""
STANDS_ON = "stands_on"
"""Metadata key in the file of a linear probe: the hash of the shipped weights that the head was trained on."""
INDEX = ".index.json"
"""Suffix of a file that lists the shards of the weights."""
_MAX_HEADER_BYTES = 100 << 20  # the limit of the safetensors library
_IN_A_FOLDER = (
    "model.safetensors",
    "checkpoints/best/model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
)
"""Paths of weights in a folder: of a checkpoint, of a run, of a transformers model."""


def weights_file(path: Path, flag: str = "--checkpoint") -> Path:
    """The file of weights at `path`: the file itself, or the one in a checkpoint's, a run's or a transformers folder.

    Of sharded weights the index file. flag: the option that the user gave the path with, for the message.

    Raises:
        VlbenchError: exit 6, no file of weights is found.
    """
    for candidate in (path, *(path / name for name in _IN_A_FOLDER)):
        if candidate.is_file():
            return candidate
    raise VlbenchError(
        f"{flag} {path} holds no weights: give a .safetensors, .pth, .pt, .ckpt or .bin file, or the folder of "
        f"a checkpoint, of a run or of a transformers model",
        ExitCode.WEIGHTS,
    )


def chosen_weights(checkpoint: str, model: str, size: str) -> Path | None:
    """The file that a resolved `checkpoint` stands for: None for "none", the model's shipped weights for "shipped".

    Raises:
        VlbenchError: exit 6, the file does not exist, or the model ships without weights.
    """
    if checkpoint == "none":
        return None
    if checkpoint != "shipped":
        return weights_file(Path(checkpoint))
    shipped = catalog.shipped_weights(model, size)
    if shipped is None:
        raise VlbenchError(
            f"--checkpoint shipped: {model}-{size} comes without weights, give a file or none", ExitCode.WEIGHTS
        )
    return shipped


def own_weights(card: ModelCard) -> Path:
    """The file of the weights that a transformers model comes with.

    Raises:
        VlbenchError: the model is not from transformers (exit 2), or its weights are missing (exit 6).
    """
    if not card.pretrained:
        raise VlbenchError(f"--checkpoint {PRETRAINED} is for models of transformers (hf:), not for {card.name}")
    folder = catalog.pretrained_folder(card)
    try:
        return weights_file(folder)
    except VlbenchError:
        raise VlbenchError(
            f"{card.name} holds no weights (model.safetensors or pytorch_model.bin): save them into the same folder, "
            f"or begin from scratch with --checkpoint none",
            ExitCode.WEIGHTS,
        ) from None


def own_processor_sha256(card: ModelCard) -> str:
    """The hash of the preprocessing files that a transformers model comes with."""
    return catalog.processor_sha256(catalog.pretrained_folder(card, weights=False))


def base_of(weights: Path, model: str, size: str) -> Path | None:
    """The shipped weights that a probed head was trained on; None for weights that include their backbone.

    Raises:
        VlbenchError: exit 6, the model now ships other weights than the head was trained on.
    """
    probed_on = read_metadata(weights).get(STANDS_ON)
    if probed_on is None:
        return None
    shipped = catalog.shipped_weights(model, size)
    if shipped is None or weights_sha256(shipped) != probed_on:
        given = f"ships with {weights_sha256(shipped)[:12]}..." if shipped else "ships without any"
        raise VlbenchError(
            f"--checkpoint {weights} is a head alone, probed on shipped weights {probed_on[:12]}..., and "
            f"{model}-{size} {given}: check --model and --size, or probe again",
            ExitCode.WEIGHTS,
        )
    return shipped


def read_metadata(weights: Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty for other formats and for damaged files."""
    return _read_header(weights)[0]


def _read_header(weights: Path) -> tuple[dict[str, str], list[str]]:
    """The metadata and the names of the tensors, as `read_metadata` describes."""
    if weights.suffix != ".safetensors":
        return {}, []
    try:
        with safe_open(weights, "np") as file:
            return dict(file.metadata() or {}), list(file.keys())
    except Exception:  # the library raises any type of error
        return {}, []  # the error is reported when the weights are loaded


def shard_files(weights: Path) -> list[Path]:
    """The files that hold the tensors: the file itself, or the shards that an index lists, sorted by name.

    Raises:
        VlbenchError: exit 6, an index lists no files, a file outside its folder, or a file that does not exist.
    """
    if not weights.name.endswith(INDEX):
        return [weights]
    content = read_json(weights)
    places = content.get("weight_map") if isinstance(content, dict) else None
    names = sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []
    faulty = [name for name in names if not name or Path(name).name != name or not weights.with_name(name).is_file()]
    if faulty or not names:
        fault = f"names {faulty[0]}, which is not beside it" if faulty else "names no files in its weight_map"
        raise VlbenchError(f"{weights} {fault}: fetch the whole folder again", ExitCode.WEIGHTS)
    return [weights.with_name(name) for name in names]


def weights_sha256(weights: Path | None, base: Path | None = None) -> str:
    """The hash of the weights, over all shards in order; empty where the model starts from scratch.

    The metadata of safetensors files is not hashed: the library writes it in another order each time. base: the weights
    that a probed head was trained on; their hash is then included.
    """
    if weights is None:
        return ""
    digest = hashlib.sha256()
    for shard in shard_files(weights):
        with shard.open("rb") as file:
            digest.update(_header_without_metadata(file) if shard.suffix == ".safetensors" else b"")
            while block := file.read(1 << 20):
                digest.update(block)
    if base is not None:
        digest.update(weights_sha256(base).encode())
    return digest.hexdigest()


def _header_without_metadata(file: BinaryIO) -> bytes:
    """The header of a safetensors file (names, types, shapes and offsets of the tensors) with sorted keys.

    Leaves the file at the first byte of the values. Of a damaged file it is empty, and the file is at its start.
    """
    try:
        header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), _MAX_HEADER_BYTES)))
        header.pop("__metadata__", None)
        return json.dumps(header, sort_keys=True).encode()
    except (ValueError, AttributeError, RecursionError):
        file.seek(0)
        return b""


def holds_linear(weights: Path) -> bool:
    """Whether the weights hold a classifier that is a single Linear, as a linear probe trains it."""
    names = {name for name in _read_header(weights)[1] if name.startswith("head.classifier.")}
    return names == {"head.classifier.0.weight", "head.classifier.0.bias"}


def brought_answers(weights: Path) -> tuple[str, ...]:
    """The answers that the rows of the file's classifier stand for; empty where no file next to it lists them.

    vlbench writes them to `answers.json`, transformers to `config.json`.

    Raises:
        DataError: the list is malformed.
    """
    listed, config = weights.with_name(ANSWERS_FILE), weights.with_name("config.json")
    if listed.is_file():
        return read_answers(listed)
    return transformers_answers(config) if config.is_file() else ()


def brought_tokenizer(weights: Path) -> Path | None:
    """The tokenizer file next to the weights, vlbench's or transformers'; None where there is none."""
    candidates = (weights.with_name(name) for name in ("tokenizer.json", "vocab.txt"))
    return next((path for path in candidates if path.is_file()), None)


def tokenizer_sha256(weights: Path | None) -> str:
    """The hash of the name and content of the tokenizer next to the weights; empty where there is none."""
    path = brought_tokenizer(weights) if weights else None
    return files_sha256([path]) if path else ""
