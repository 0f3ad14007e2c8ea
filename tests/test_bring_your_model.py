"""The README's table of five ways to bring a model: each command runs, over small stand-ins for folders and files."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vlbench.records.folder import read_run

Call = Callable[..., Any]
README = Path(__file__).resolve().parents[1] / "README.md"
ANSWERS = ("red", "yes", "2", "no", "blue")
TINY_VILT = {
    "hidden_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 256, "image_size": 48,
    "max_position_embeddings": 64, "layer_norm_eps": 1e-6, "modality_type_vocab_size": 3,
}  # fmt: skip
QUICK = ("--limit", "8", "--controls", "none", "--quiet")
ENTRY = "[vlbench.models]\ngallery = gallery_kit.gallery.backbone:Gallery\n"


def commands() -> list[str]:
    """In the order of the table."""
    section = README.read_text(encoding="utf8").partition("## Bring your model")[2].partition("\n\n`vlbench run")[0]
    return re.findall(r"\| `(vlbench run [^`]+)` \|", section)


def test_there_are_five_ways() -> None:
    assert len(commands()) == 5


@pytest.fixture
def bring(
    make_hf: Callable[..., Path], vlbench: Call, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Callable[[], None]]:
    """What lays the stand-in for each way into the folder that the command runs in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLBENCH_DATA", str(tiny_world))

    def folder() -> None:
        shutil.copytree(make_hf("CLIPModel"), "openai/clip-vit-base-patch32")

    def official() -> None:
        theirs = make_hf("ViltForQuestionAnswering", ANSWERS, **TINY_VILT)
        state = {key.removeprefix("vilt."): value for key, value in load_file(theirs / "model.safetensors").items()}
        named = {key.replace("classifier.", "vqa_classifier."): value for key, value in renamed(state).items()}
        torch.save({"state_dict": named}, "vilt_vqa.ckpt")
        shutil.copy(theirs / "tokenizer.json", "tokenizer.json")
        Path("answers.json").write_text(json.dumps(ANSWERS))

    def run() -> None:
        done = vlbench("run", "--task", "nlvr2", "--model", "vilt", "--steps", 2, *QUICK)
        assert done.code == 0, done.err
        shutil.copytree(done.run, "my-run")

    def file() -> None:
        assert vlbench("new", "model", "palette").code == 0

    def package() -> None:
        vlbench("new", "model", "gallery", "--into", "site/gallery_kit")
        for place in ("gallery_kit", "gallery_kit/gallery"):
            Path("site", place, "__init__.py").touch()
        notes = Path("site/gallery_kit-1.0.dist-info")
        notes.mkdir()
        (notes / "METADATA").write_text("Metadata-Version: 2.1\nName: gallery-kit\nVersion: 1.0\n")
        (notes / "entry_points.txt").write_text(ENTRY)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))

    return [folder, official, run, file, package]


def renamed(state: dict[str, Any]) -> dict[str, Any]:
    """By the names of ViLT's official files, as the unit test of their converter writes them."""
    path = Path(__file__).parent / "unit" / "models" / "test_vilt_checkpoint.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: dict[str, Any] = module.official(state)
    return made


@pytest.mark.parametrize("way", range(5))
def test_each_way_runs(bring: list[Callable[[], None]], vlbench: Call, way: int) -> None:
    bring[way]()
    arguments = shlex.split(commands()[way])[1:]
    done = vlbench(*arguments, *QUICK, *(() if "--mode" in arguments else ("--steps", 2)))
    assert done.code == 0, done.err
    record = read_run(done.run)
    assert (record.status, record.task.name) == ("done", arguments[arguments.index("--task") + 1])
    assert record.model.from_scratch == (way > 2) and record.coverage is not None and record.coverage.scored == 8
