"""A model on the hub is what the hub's client keeps of it: no network is needed for what is there already."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from vlbench import catalog
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.models.hf import folder as folders

MakeHF = Callable[..., Path]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(make_hf: MakeHF, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub's client that holds `somebody/clip`; its snapshot."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = tmp_path / "models--somebody--clip"
    shutil.copytree(make_hf("CLIPModel"), model / "snapshots" / COMMIT)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    return model / "snapshots" / COMMIT


@pytest.mark.parametrize("name", ["hf:somebody/clip", f"hf:somebody/clip@{COMMIT}"])
def test_what_was_fetched_before_is_found(hub: Path, name: str) -> None:
    card = catalog.model_card(name)
    assert (card.name, card.title) == (name, "CLIP")
    assert catalog.pretrained_folder(card).resolve() == hub.resolve()


def test_another_revision_is_not_taken_for_it(hub: Path) -> None:
    with pytest.raises(VlbenchError, match="hf:somebody/clip is no local folder, and is neither on the hub") as caught:
        catalog.model_card("hf:somebody/clip@v2")
    assert caught.value.exit_code == ExitCode.WEIGHTS


@pytest.mark.parametrize("name", ["hf:", "hf:a/b/c", "hf:/no/such", "hf:a b", "hf:../x", "hf:a/b@"])
def test_what_is_neither_folder_nor_id(name: str) -> None:
    with pytest.raises(VlbenchError, match=r"neither on the hub|is no folder and no id on the hub") as caught:
        catalog.model_card(name)
    assert caught.value.exit_code == (ExitCode.WEIGHTS if name == "hf:a/b@" else ExitCode.USAGE)


def test_a_hub_out_of_reach_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing listens at that port; waiting between attempts would be an error."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits {seconds} s"))
    with pytest.raises(VlbenchError, match="hf:nobody/nothing is no local folder, and is neither on the hub") as caught:
        catalog.model_card("hf:nobody/nothing")
    assert caught.value.exit_code == ExitCode.WEIGHTS and "check the network" in caught.value.message
    assert not caplog.records


def test_a_gated_model_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class GatedRepoError(OSError):
        """As the hub's client names it."""

    def deny(*_: object, **__: object) -> str:
        raise GatedRepoError

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", deny)
    with pytest.raises(VlbenchError, match="it is gated: accept its licence on its page and run `hf auth login`"):
        folders.read_config("hf:somebody/gated")


def test_a_folder_is_called_by_its_own_name(make_hf: MakeHF, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_hf("CLIPModel")
    monkeypatch.chdir(folder.parent)
    names = [catalog.model_card(f"hf:{path}").name for path in (folder, folder.name, f"./{folder.name}/")]
    assert names == [f"hf:{folder.name}"] * 3
    monkeypatch.chdir(folder)
    assert catalog.model_card("hf:.").name == f"hf:{folder.name}"
