"""Pretrained models that cannot be used, of every kind: one sentence, the exit code, no traceback, nothing left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlbench.core.errors import ExitCode
from vlbench.records.folder import find_runs, read_run

MakeModel = Callable[[str], Path]
ANSWERS = ("red", "yes", "2")
KINDS = {"fusion": "ViltForQuestionAnswering", "dual": "CLIPModel", "generative": "llava"}
TASKS = {"fusion": ("vqa2", "eval"), "dual": ("snli_ve", "zero-shot"), "generative": ("nlvr2", "zero-shot")}


@pytest.fixture
def model(make_hf: Callable[..., Path], make_vlm: Callable[[str], Any], tmp_path: Path) -> MakeModel:
    """A copy, which may be spoilt, of a model of that kind."""

    def copy(kind: str) -> Path:
        name = KINDS[kind]
        whole = make_vlm(name).folder if kind == "generative" else make_hf(name, ANSWERS if kind == "fusion" else ())
        return Path(shutil.copytree(whole, tmp_path / "model"))

    return copy


def of_another_architecture(folder: Path) -> None:
    save_file({"encoder.rows": torch.ones(4, 4)}, folder / "model.safetensors", {"format": "pt"})


def half_of_the_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for number, (name, value) in enumerate(weights.items()) if number % 2}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def cut_short(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def no_numbers(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name, value in weights.items() if value.ndim == 2)
    save_file(weights | {name: weights[name] * float("nan")}, folder / "model.safetensors", {"format": "pt"})


class Code:
    """What a pickle would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def code_in_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Code(folder / "was-run")}, folder / "pytorch_model.bin")


def without(*names: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for name in names:
            (folder / name).unlink(missing_ok=True)

    return spoil


def config(**changes: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return spoil


NO_TOKENIZER, NO_IMAGES = without("tokenizer.json"), without("preprocessor_config.json", "processor_config.json")
OWN_CODE = config(auto_map={"AutoModel": "modeling.Own"})
EVERY = {
    "another architecture": (of_another_architecture, ExitCode.WEIGHTS, "expected at least 99 %"),
    "half of the keys": (half_of_the_weights, ExitCode.WEIGHTS, "expected at least 99 %"),
    "a file cut short": (cut_short, ExitCode.WEIGHTS, "save it again"),
    "no numbers": (no_numbers, ExitCode.WEIGHTS, "a training that did not diverge"),
    "code in a pickle": (code_in_a_pickle, ExitCode.WEIGHTS, "of which nothing was run"),
    "no weights": (without("model.safetensors"), ExitCode.WEIGHTS, "holds no weights"),
    "no tokenizer": (NO_TOKENIZER, ExitCode.WEIGHTS, ""),
    "no image processor": (NO_IMAGES, ExitCode.WEIGHTS, ""),
    "no config.json": (without("config.json"), ExitCode.WEIGHTS, "has no readable config.json"),
    "no pictures": (config(model_type="bert", architectures=["BertModel"]), ExitCode.USAGE, "takes no images"),
    "code of its own": (OWN_CODE, ExitCode.USAGE, "give --trust-remote-code"),
}


@pytest.mark.parametrize("fault", list(EVERY))
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_folder_that_is_no_good(
    model: MakeModel, vlbench: Callable[..., Any], tiny_world: Path, tmp_path: Path, kind: str, fault: str
) -> None:
    spoil, code, said = EVERY[fault]
    folder, (task, mode) = model(kind), TASKS[kind]
    spoil(folder)
    place = ("--data-root", tiny_world, "--output-path", tmp_path / "runs", "--limit", 4, "--quiet")
    done = vlbench("run", "--task", task, "--model", f"hf:{folder}", "--mode", mode, *place)
    assert done.code == code, done.err
    assert done.err.startswith("vlbench: ") and done.err.count("\n") == 1 and done.out == ""
    assert said in done.err and "hf:" in done.err
    assert not (folder / "was-run").exists()
    assert all(read_run(run).status == "failed" for run in find_runs(tmp_path / "runs"))


@pytest.mark.parametrize(
    ("kind", "arguments", "code", "said"),
    [
        ("fusion", ("--task", "snli_ve", "--mode", "eval"), 6, "rows stand for 2, red, yes"),
        ("fusion", ("--task", "nlvr2", "--mode", "eval"), 6, "brings a head for classify only"),
        ("dual", ("--task", "nlvr2", "--mode", "zero-shot"), 2, "use --mode probe or finetune"),
        ("generative", ("--task", "nlvr2", "--mode", "eval"), 2, "was not trained on nlvr2"),
        ("generative", ("--task", "coco_retrieval"), 2, "has no head for coco_retrieval"),
        ("generative", ("--task", "nlvr2", "--mode", "zero-shot", "--quantize", "4bit"), 6, "--quantize 4bit needs"),
        (
            "dual",
            ("--task", "snli_ve", "--mode", "zero-shot", "--device-map", "auto"),
            2,
            "generative models of transformers",
        ),
        ("fusion", ("--task", "vqa2", "--mode", "eval", "--set", "train.lora_rank=4"), 2, "is for --mode finetune"),
    ],
)
def test_what_a_sound_folder_cannot_do(
    model: MakeModel,
    vlbench: Callable[..., Any],
    tiny_world: Path,
    tmp_path: Path,
    kind: str,
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    place = ("--data-root", tiny_world, "--output-path", tmp_path / "runs", "--quiet")
    done = vlbench("run", "--model", f"hf:{model(kind)}", *arguments, *place)
    assert done.code == code and done.err.count("\n") == 1 and said in done.err, done.err
    assert not (tmp_path / "runs").exists()


def test_no_such_folder(vlbench: Callable[..., Any], tiny_world: Path) -> None:
    done = vlbench("run", "--task", "vqa2", "--model", "hf:/no/such/folder", "--data-root", tiny_world)
    assert done.code == ExitCode.USAGE and "is no folder and no id" in done.err


@pytest.mark.parametrize("name", ["hf:nobody/nothing-that-is-cached", "hf:nobody/nothing@0123abc"])
def test_a_hub_without_a_network(vlbench: Callable[..., Any], tiny_world: Path, name: str) -> None:
    done = vlbench("run", "--task", "vqa2", "--model", name, "--mode", "zero-shot", "--data-root", tiny_world)
    assert done.code == ExitCode.WEIGHTS and done.err.count("\n") == 1
    assert "is neither on the hub nor in its cache" in done.err and "check the network" in done.err


@pytest.mark.parametrize("spoil", [of_another_architecture, half_of_the_weights, cut_short, code_in_a_pickle])
def test_a_checkpoint_that_is_no_good(
    model: MakeModel, vlbench: Callable[..., Any], tiny_world: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """The same weights into a model of this house."""
    folder = model("fusion")
    spoil(folder)
    place = ("--data-root", tiny_world, "--output-path", tmp_path / "runs", "--quiet", "--mode", "eval")
    done = vlbench("run", "--task", "vqa2", "--model", "vilt", "--size", "tiny", "--checkpoint", folder, *place)
    assert done.code == ExitCode.WEIGHTS and done.err.count("\n") == 1 and str(folder) in done.err
    assert not (folder / "was-run").exists()
