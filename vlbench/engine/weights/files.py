"""Which file a user's `--checkpoint` means, and its hash; without torch, because the fingerprint needs both."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError, safe_open

from vlbench import catalog
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.data.cache.folder import files_sha256
from vlbench.data.json.document import read_json
from vlbench.data.text.answers import ANSWERS_FILE, read_answers, transformers_answers

_LONGEST_HEADER = 100 << 20
"""As the library itself limits it."""
STANDS_ON = "stands_on"
"""What vlbench notes in a head that was probed over the weights that a model ships with: their hash."""
INDEX = ".index.json"
"""How a file ends that names the shards which the weights lie in."""
_IN_A_FOLDER = (
    "model.safetensors",
    "checkpoints/best/model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
)
"""Where weights lie in a folder: a checkpoint's, a run's, transformers'."""


def weights_file(path: Path, flag: str = "--checkpoint") -> Path:
    """The file itself, or that of a checkpoint's, a run's or a transformers model's folder; of shards their index.

    flag: what the user gave it by, for the message.

    Raises:
        VlbenchError: exit 6, there is none.
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
    """The file that a resolved `checkpoint` means: None for "none", the model's own for "shipped".

    Raises:
        VlbenchError: exit 6, there is none.
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


def base_of(weights: Path, model: str, size: str) -> Path | None:
    """The shipped weights that a probed head stands on; None of weights that stand by themselves.

    Raises:
        VlbenchError: exit 6, they are not those that the head was probed on.
    """
    probed_on = notes(weights).get(STANDS_ON)
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


def notes(weights: Path) -> dict[str, str]:
    """What is noted beside the tensors of a safetensors file; nothing of other and of damaged files."""
    if weights.suffix != ".safetensors":
        return {}
    try:
        with safe_open(weights, "np") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return {}  # loading them says what is wrong


def shards(weights: Path) -> list[Path]:
    """The files that the tensors lie in: the file itself, or those that an index names, in order.

    Raises:
        VlbenchError: exit 6, an index names no files, one outside its folder, or one that is not there.
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
    """The hash of the weights, of shards one after the other; empty where the model starts from scratch.

    base: what a head alone stands on, which then counts as well.

    Of safetensors what is noted beside the tensors does not count: the library writes it in another order each time.
    """
    if weights is None:
        return ""
    digest = hashlib.sha256()
    for shard in shards(weights):
        with shard.open("rb") as file:
            digest.update(_tensors_named(file) if shard.suffix == ".safetensors" else b"")
            while block := file.read(1 << 20):
                digest.update(block)
    if base is not None:
        digest.update(weights_sha256(base).encode())
    return digest.hexdigest()


def _tensors_named(file: BinaryIO) -> bytes:
    """Names, types, shapes and places of the tensors, in one order; the file is left where their values begin.

    Of a damaged file nothing, and it is left at its beginning.
    """
    try:
        header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), _LONGEST_HEADER)))
        header.pop("__metadata__", None)
        return json.dumps(header, sort_keys=True).encode()
    except (ValueError, AttributeError, RecursionError):
        file.seek(0)
        return b""


def holds_linear(weights: Path) -> bool:
    """Whether they are of a learner whose classifier is a single Linear, as a probe trains it."""
    if weights.suffix != ".safetensors":
        return False
    try:
        with safe_open(weights, "np") as file:
            names = list(file.keys())
    except (OSError, SafetensorError):
        return False  # loading them says what is wrong
    return {name for name in names if name.startswith("head.classifier.")} == {
        "head.classifier.0.weight",
        "head.classifier.0.bias",
    }


def brought_answers(weights: Path) -> tuple[str, ...]:
    """What the rows of the file's classifier stand for, as far as is said beside it; empty where nothing is.

    vlbench says it in `answers.json`, transformers in `config.json`.

    Raises:
        DataError: the list is faulty.
    """
    listed, config = weights.with_name(ANSWERS_FILE), weights.with_name("config.json")
    if listed.is_file():
        return read_answers(listed)
    return transformers_answers(config) if config.is_file() else ()


def brought_tokenizer(weights: Path) -> Path | None:
    """The tokenizer beside the weights, vlbench's or transformers'; None where there is none."""
    beside = (weights.with_name(name) for name in ("tokenizer.json", "vocab.txt"))
    return next((path for path in beside if path.is_file()), None)


def tokenizer_sha256(weights: Path | None) -> str:
    """The hash of the tokenizer beside the weights, with its name, which says how it is read; empty without one."""
    path = brought_tokenizer(weights) if weights else None
    return files_sha256([path]) if path else ""
