"""Folders of transformers that reach for code: rejected before the library reads them, unless they are trusted."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vlbench import catalog
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.data.images.load import ImageFiles
from vlbench.data.resources import Loading, Resources
from vlbench.models.hf.pretrained import PretrainedFolder

PROCESSOR = {"auto_map": {"AutoProcessor": "owner/name--processing.Own"}}
AUDIO = {"audio_tokenizer_class": "DacModel", "audio_tokenizer_name_or_path": "owner/name"}
HOSTILE: dict[str, tuple[str, dict[str, Any], str]] = {
    "code of the folder": ("config.json", {"auto_map": {"AutoConfig": "own.Own"}}, "auto_map"),
    "code of the hub": ("config.json", {"auto_map": {"AutoModel": "owner/name--own.Own"}}, "auto_map"),
    "code of a part": ("config.json", {"text_config": {"auto_map": {"AutoModel": "o/n--own.Own"}}}, "auto_map"),
    "a kernel": ("config.json", {"_attn_implementation": "owner/name"}, "_attn_implementation"),
    "a kernel by its public name": ("config.json", {"attn_implementation": "owner/name@1:f"}, "attn_implementation"),
    "a paged kernel": ("config.json", {"attn_implementation": "paged|owner/name"}, "attn_implementation"),
    "a kernel for each part": (
        "config.json", {"attn_implementation": {"text_config": "owner/name"}}, "attn_implementation"),
    "a kernel of a part": (
        "config.json", {"vision_config": {"_attn_implementation": "owner/name"}}, "_attn_implementation"),
    "a kernel inside": (
        "config.json", {"_attn_implementation_internal": "owner/name"}, "_attn_implementation_internal"),
    "a kernel of experts": ("config.json", {"experts_implementation": "owner/name"}, "experts_implementation"),
    "a network of timm": ("config.json", {"vision_config": {"architecture": "hf-hub:owner/name"}}, "architecture"),
    "a config of another version": ("config.4.0.0.json", {"_attn_implementation": "owner/name"}, "_attn_impl"),
    "a processor": ("processor_config.json", PROCESSOR, "auto_map"),
    "an image processor": ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "own.Own"}}, "auto_map"),
    "a tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["own.Own", None]}}, "auto_map"),
    "a tokenizer of audio": ("processor_config.json", {"audio_tokenizer": AUDIO}, "audio_tokenizer_name_or_path"),
    "a way to generate": ("generation_config.json", {"custom_generate": "owner/name"}, "custom_generate"),
}  # fmt: skip


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A network that fails the test if it is used, and the package `kernels` as it is before the first model."""

    def reached(*_: object, **__: object) -> None:
        raise AssertionError("the hub is reached for")

    monkeypatch.setattr(socket, "getaddrinfo", reached)
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    yield
    sys.modules.pop("kernels", None)


def change(file: Path, values: dict[str, Any]) -> None:
    content = json.loads(file.read_text()) if file.is_file() else {}
    for key, value in values.items():
        both = isinstance(value, dict) and isinstance(content.get(key), dict)
        content[key] = content[key] | value if both else value
    file.write_text(json.dumps(content))


def load(folder: Path) -> Any:
    resources = Resources(None, ImageFiles(), loading=Loading())
    return catalog.load_model(catalog.model_card(f"hf:{folder}"), "hf", resources)


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.usefixtures("no_hub")
def test_code_is_named_before_the_library_reads_it(
    make_vlm: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    file, values, key = HOSTILE[kind]
    folder = Path(shutil.copytree(make_vlm("llava").folder, tmp_path / "model"))
    change(folder / file, values)
    with monkeypatch.context() as patch, pytest.raises(VlbenchError) as caught:
        patch.setattr("transformers.AutoConfig.from_pretrained", lambda *_, **__: pytest.fail("it is read"))
        load(folder)
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.message.startswith("hf:model ") and "give --trust-remote-code" in caught.value.message
    assert key in caught.value.message and f"in its {file}" in caught.value.message


@pytest.mark.usefixtures("no_hub")
def test_kernels_are_hidden_from_a_model_that_is_not_trusted(make_hf: Callable[..., Path]) -> None:
    folder = make_hf("CLIPModel")
    PretrainedFolder(folder, "hf:model", Loading(trust_remote_code=True))
    assert "kernels" not in sys.modules
    load(folder)
    with pytest.raises(ModuleNotFoundError):
        import kernels  # type: ignore[import-not-found]  # noqa: F401


def test_words_about_code_in_a_vocabulary_are_none(make_hf: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(make_hf("CLIPModel"), tmp_path / "model"))
    change(folder / "vocab.json", {"auto_map": 3})
    change(folder / "config.json", {"_attn_implementation": "eager"})
    load(folder)


def test_a_missing_library_is_no_fault_of_the_folder(make_hf: Callable[..., Path]) -> None:
    source = PretrainedFolder(make_hf("CLIPModel"), "hf:model", Loading())
    message = source.fault("an image processor that does not load", ImportError("it needs torchvision")).message
    assert "install the library that it names" in message and "save it again" not in message
