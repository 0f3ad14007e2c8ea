"""Find the folder of a pretrained model: the user's own, or the hub client's cache."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from vlbench.core.cards import ModelCard
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.paths import expand_home, visible
from vlbench.data.cache.folder import files_sha256

PREFIX = "hf:"
SIZE = "hf"
"""The name of the one size of such a model."""
SOURCE = "source"
"""The key under which a card's size keeps the user's name for the model."""
_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_WITHOUT_WEIGHTS = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja")
_BESIDES = ("*.py", "additional_chat_templates/*.jinja")
_WEIGHTS = ("*.safetensors", "*.bin")
"""Safetensors first: if there are some, nothing else is downloaded."""
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
    """Read the config.json of `hf:FOLDER` or `hf:ID[@REVISION]`; from the hub only that file is downloaded.

    Raises VlbenchError: no such folder (exit 2); the download fails, or there is no config.json (exit 6).
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
    """Return the folder of a card from `hf_card`, downloaded from the hub if needed.

    weights: whether to download the weights too.

    Raises VlbenchError: exit 6, the download fails.
    """
    return fetched_folder(str(card.sizes[SIZE].config[SOURCE]), weights=weights)


def fetched_folder(name: str, *, weights: bool = True) -> Path:
    """Return the folder of `hf:FOLDER` or `hf:ID[@REVISION]`, of any architecture, downloaded if needed.

    Raises VlbenchError: exit 6, the download fails.
    """
    source, revision = _source(name)
    if Path(source).is_dir():
        return Path(source)
    folder = _fetch_folder(source, revision, _WITHOUT_WEIGHTS)
    if weights:
        for pattern in _WEIGHTS:
            folder = _fetch_folder(source, revision, (*_WITHOUT_WEIGHTS, pattern))
            if visible(folder, pattern):
                break
    return folder


def short_name(name: str) -> str:
    """The name in tables: `hf:` and the folder's own name, or the id."""
    source, revision = _source(name)
    folder = Path(source)
    return f"{PREFIX}{folder.resolve().name if folder.is_dir() else source}{f'@{revision}' if revision else ''}"


def check_processor(folder: Path, name: str, images: bool) -> None:
    """Check that the folder has a tokenizer, and with `images` an image processor.

    Raises VlbenchError: exit 6, one of them is missing.
    """
    if not any((folder / file).is_file() for file in _TOKENIZER):
        raise VlbenchError(f"{name} has no tokenizer ({' or '.join(_TOKENIZER[:3])}): {_ADD}", ExitCode.WEIGHTS)
    if images and not any((folder / file).is_file() for file in _PROCESSOR):
        raise VlbenchError(f"{name} has no image processor ({' or '.join(_PROCESSOR)}): {_ADD}", ExitCode.WEIGHTS)


_ADD = "weights need their own preprocessing, save the processor into the same folder"


def processor_sha256(folder: Path) -> str:
    """The hash of the files of the preprocessing."""
    return files_sha256([folder / name for name in (*_PROCESSOR, *_TOKENIZER, *_SETTINGS)])


def settings_sha256(folder: Path) -> str:
    """The hash of all files but the weights that answers depend on: preprocessing, configuration, prompt format,
    generation settings and code."""
    return files_sha256([file for pattern in (*_WITHOUT_WEIGHTS, *_BESIDES) for file in visible(folder, pattern)])


def _source(name: str) -> tuple[str, str | None]:
    """The folder or the id on the hub, and the revision."""
    source = name.removeprefix(PREFIX)
    folder = expand_home(Path(source))
    if source and folder.is_dir():
        return str(folder), None
    plain, _, revision = source.partition("@")
    if not _ID.fullmatch(plain):
        raise VlbenchError(
            f"--model {name} is no folder and no id on the hub: give hf:FOLDER, hf:OWNER/NAME or hf:OWNER/NAME@REVISION"
        )
    return plain, revision or None


def _fetch_config(source: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download  # takes half a second, which local folders do not need

    def fetch() -> str:
        _check_reached(source, revision)
        return hf_hub_download(source, "config.json", revision=revision)

    return Path(_fetched(source, fetch))


def _check_reached(source: str, revision: str | None) -> None:
    """Ask the hub once for a file that is not cached: the client's own download retries for half a minute.

    Raises OSError: the hub cannot be reached, or denies access.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(source, "config.json", revision=revision), str):
        return
    try:
        get_hf_file_metadata(hf_hub_url(source, "config.json", revision=revision))
    except (OSError, ValueError):
        raise
    except Exception as error:  # of the client's HTTP library, which has changed before
        raise ConnectionError(type(error).__name__) from error


def _fetch_folder(source: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    wanted = list(patterns)
    return Path(_fetched(source, lambda: snapshot_download(source, revision=revision, allow_patterns=wanted)))


def _fetched(source: str, fetch: Callable[[], str]) -> str:
    try:
        return fetch()
    except (OSError, ValueError) as error:  # the client raises one or the other
        kind = type(error).__name__
        remedy = "check the network, or give a folder that save_pretrained wrote"
        if kind == "GatedRepoError":
            remedy = "it is gated: accept its licence on its page and run `hf auth login`"
        elif kind in ("RepositoryNotFoundError", "RevisionNotFoundError", "HFValidationError"):
            remedy = "check the name and the revision, or run `hf auth login` if it is private"
        raise VlbenchError(
            f"{PREFIX}{source} is no local folder, and is neither on the hub nor in its cache ({kind}): {remedy}",
            ExitCode.WEIGHTS,
        ) from None
