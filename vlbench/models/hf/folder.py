"""Where a pretrained model lies: a folder of the user's, or one that the hub's client keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from vlbench.core.cards import ModelCard
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.data.cache.folder import files_sha256

PREFIX = "hf:"
SIZE = "hf"
"""The one size of such a model: what its config.json says."""
SOURCE = "source"
"""Under which a card's size keeps where the model is from, as the user named it."""
_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_WITHOUT_WEIGHTS = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja")
_BESIDES = ("*.py", "additional_chat_templates/*.jinja")
_WEIGHTS = ("*.safetensors", "*.bin")
"""Safetensors first: where there are some, nothing else is fetched."""
_PROCESSOR = ("preprocessor_config.json", "processor_config.json")
_TOKENIZER = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
)
_SETTINGS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)


def read_config(name: str) -> dict[str, object]:
    """The config.json of `hf:FOLDER` or `hf:ID[@REVISION]`; of a model on the hub that file alone is fetched.

    Raises:
        VlbenchError: no such folder (exit 2); nothing to be had from the hub, or no config.json in it (exit 6).
    """
    source, revision = _source(name)
    path = Path(source) / "config.json" if Path(source).is_dir() else _fetch_config(source, revision)
    try:
        content = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise VlbenchError(
            f"{name} has no readable config.json ({type(error).__name__}): give the folder that save_pretrained wrote",
            ExitCode.WEIGHTS,
        ) from None
    if not isinstance(content, dict):
        raise VlbenchError(f"{path} holds no JSON object: give the folder that save_pretrained wrote", ExitCode.WEIGHTS)
    return content


def folder_of(card: ModelCard, *, weights: bool = True) -> Path:
    """The folder of a card that `hf_card` made, fetched from the hub where it is not there yet.

    weights: whether they are needed, or only what the model is made and its input prepared by.

    Raises:
        VlbenchError: exit 6, it is not to be had.
    """
    return fetched_folder(str(card.sizes[SIZE].config[SOURCE]), weights=weights)


def fetched_folder(name: str, *, weights: bool = True) -> Path:
    """The folder of `hf:FOLDER` or `hf:ID[@REVISION]`, whatever architecture it holds.

    Raises:
        VlbenchError: exit 6, it cannot be fetched.
    """
    source, revision = _source(name)
    if Path(source).is_dir():
        return Path(source)
    folder = _fetch_folder(source, revision, _WITHOUT_WEIGHTS)
    if weights:
        for pattern in _WEIGHTS:
            folder = _fetch_folder(source, revision, (*_WITHOUT_WEIGHTS, pattern))
            if any(folder.glob(pattern)):
                break
    return folder


def short_name(name: str) -> str:
    """`hf:` and the folder's own name, or the id: how tables call it."""
    source, revision = _source(name)
    folder = Path(source)
    return f"{PREFIX}{folder.resolve().name if folder.is_dir() else source}{f'@{revision}' if revision else ''}"


def check_processor(folder: Path, name: str, pictures: bool) -> None:
    """What prepares the model's input must be there; pictures: whether it looks at pixels.

    Raises:
        VlbenchError: exit 6, naming what is missing.
    """
    if not any((folder / file).is_file() for file in _TOKENIZER):
        raise VlbenchError(f"{name} has no tokenizer ({' or '.join(_TOKENIZER[:3])}): {_ADD}", ExitCode.WEIGHTS)
    if pictures and not any((folder / file).is_file() for file in _PROCESSOR):
        raise VlbenchError(f"{name} has no image processor ({' or '.join(_PROCESSOR)}): {_ADD}", ExitCode.WEIGHTS)


_ADD = "weights are worth nothing without their own preprocessing, save the processor into the same folder"


def processor_sha256(folder: Path) -> str:
    """Identifies the files that the model's input is prepared by."""
    return files_sha256([folder / name for name in (*_PROCESSOR, *_TOKENIZER, *_SETTINGS)])


def settings_sha256(folder: Path) -> str:
    """Identifies all that answers depend on besides the weights: what prepares the input, what the network is like,
    what its rows mean, how it is asked and how it writes, and code that it brings along."""
    return files_sha256([file for pattern in (*_WITHOUT_WEIGHTS, *_BESIDES) for file in folder.glob(pattern)])


def _source(name: str) -> tuple[str, str | None]:
    """The folder or the hub's id, and the revision."""
    source = name.removeprefix(PREFIX)
    folder = Path(source).expanduser()
    if source and folder.is_dir():
        return str(folder), None
    plain, _, revision = source.partition("@")
    if not _ID.fullmatch(plain):
        raise VlbenchError(
            f"--model {name} is no folder and no id on the hub: give hf:FOLDER, hf:OWNER/NAME or hf:OWNER/NAME@REVISION"
        )
    return plain, revision or None


def _fetch_config(source: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download  # costs half a second, which local folders need not wait for

    def fetch() -> str:
        _check_reached(source, revision)
        return hf_hub_download(source, "config.json", revision=revision)

    return Path(_fetched(source, fetch))


def _check_reached(source: str, revision: str | None) -> None:
    """What is not kept here is asked for once: the client's own download asks for half a minute, line by line.

    Raises:
        OSError: the hub cannot be reached, or says no.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(source, "config.json", revision=revision), str):
        return
    try:
        get_hf_file_metadata(hf_hub_url(source, "config.json", revision=revision))
    except (OSError, ValueError):
        raise
    except Exception as error:  # of whatever the client speaks HTTP by, which it has changed before
        raise ConnectionError(type(error).__name__) from error


def _fetch_folder(source: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    wanted = list(patterns)
    return Path(_fetched(source, lambda: snapshot_download(source, revision=revision, allow_patterns=wanted)))


def _fetched(source: str, fetch: Callable[[], str]) -> str:
    try:
        return fetch()
    except (OSError, ValueError) as error:  # what the hub's client raises is one or the other
        kind = type(error).__name__
        remedy = "check the network, or give a folder that save_pretrained wrote"
        if kind == "GatedRepoError":
            remedy = "accept its licence on its page and log in with `hf auth login`"
        elif kind in ("RepositoryNotFoundError", "RevisionNotFoundError", "HFValidationError"):
            remedy = "check the name and the revision, or log in with `hf auth login` where it is private"
        raise VlbenchError(
            f"{PREFIX}{source} is no folder here, and cannot be had from the hub nor from its cache ({kind}): {remedy}",
            ExitCode.WEIGHTS,
        ) from None
