"""A model whose folder brings its own code: refused until it is trusted, then run by the same rules as any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import transformers
from safetensors.torch import save_file

CONFIG = """
from pathlib import Path
from transformers import LlavaConfig

Path({trace!r}).touch()

class OwnConfig(LlavaConfig):
    model_type = "own_llava"
"""
MODEL = """
from transformers import LlavaForConditionalGeneration
from .configuration_own import OwnConfig

class OwnForConditionalGeneration(LlavaForConditionalGeneration):
    config_class = OwnConfig
"""
AUTO = {
    "AutoConfig": "configuration_own.OwnConfig",
    "AutoModelForImageTextToText": "modeling_own.OwnForConditionalGeneration",
}


@pytest.fixture
def own(make_vlm: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A LLaVA under a name of its own, with the two files that say what it is; they leave a trace when they run."""
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    loop = make_vlm("llava")
    folder = Path(shutil.copytree(loop.folder, tmp_path / "own"))
    # As the network names them: what the library calls them on disk is for model types that it knows.
    save_file(loop.model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own_llava", "architectures": ["OwnForConditionalGeneration"], "auto_map": AUTO}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "configuration_own.py").write_text(CONFIG.format(trace=str(tmp_path / "was-run")))
    (folder / "modeling_own.py").write_text(MODEL)
    return folder


def test_it_runs_only_when_it_is_trusted(
    own: Path, make_vlm: Callable[[str], Any], vlbench: Callable[..., Any], tiny_world: Path, tmp_path: Path
) -> None:
    place = ("--data-root", tiny_world, "--output-path", tmp_path / "runs", "--quiet", "--limit", 4)
    ask = ("run", "--task", "nlvr2", "--mode", "zero-shot", *place)
    done = vlbench(*ask, "--model", f"hf:{own}")
    assert done.code == 2 and done.err.count("\n") == 1
    assert "hf:own comes with code of its own" in done.err and "give --trust-remote-code" in done.err
    assert not (tmp_path / "was-run").exists()
    done = vlbench(*ask, "--model", f"hf:{own}", "--trust-remote-code")
    assert done.code == 0, done.err
    assert (tmp_path / "was-run").exists()
    assert json.loads((done.run / "run.json").read_text())["spec"]["trust_remote_code"] is True
    plain = vlbench(*ask, "--model", f"hf:{make_vlm('llava').folder}")
    found = [pd.read_parquet(one.run / "samples.parquet") for one in (done, plain)]
    assert found[0].equals(found[1])
