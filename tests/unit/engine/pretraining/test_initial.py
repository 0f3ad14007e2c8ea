"""Pretraining from weights: of the whole model or of its towers; frozen layers are never left at random values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from vlbench import catalog
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.progress import Silent
from vlbench.core.spec import PretrainSpec
from vlbench.data.resources import Resources
from vlbench.engine.pretraining import pretrain as module
from vlbench.engine.pretraining.initial import Initial, load_initial
from vlbench.engine.pretraining.pretrain import pretrain

Call = Callable[..., Any]


@pytest.fixture
def spec(tiny_world: Path, tmp_path: Path) -> Callable[..., PretrainSpec]:
    def made(**fields: object) -> PretrainSpec:
        values = {"model": "cvlp", "data_root": tiny_world, "output_path": tmp_path / "pretrained",
                  "train": {"steps": 1, "batch_size": 4, "lr": 1e-12}}  # fmt: skip
        return PretrainSpec.model_validate({**values, **fields})

    return made


@pytest.fixture
def words(tiny_world: Path) -> int:
    return len((tiny_world / "vocab.txt").read_text(encoding="utf8").split())


def save_bert(folder: Path, words: int, **changes: int) -> Path:
    torch.manual_seed(3)
    sizes = {"vocab_size": words, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
             "intermediate_size": 256, "max_position_embeddings": 64}  # fmt: skip
    hf.BertModel(hf.BertConfig(**(sizes | changes))).save_pretrained(folder)
    return folder


def test_training_starts_from_shipped_weights(spec: Callable[..., PretrainSpec]) -> None:
    folder = pretrain(spec(checkpoint="shipped"), Silent())
    shipped = load_file(catalog.shipped_weights("cvlp", "tiny"))  # type: ignore[arg-type]
    got = load_file(folder / "model.safetensors")
    backbone = [name for name in got if name.startswith("backbone.")]
    assert all(torch.allclose(got[name], shipped[name], atol=1e-6) for name in backbone)
    scratch = load_file(pretrain(spec(resume=False), Silent()) / "model.safetensors")
    assert not all(torch.allclose(scratch[name], shipped[name], atol=1e-6) for name in backbone)


def test_other_weights_are_another_pretraining(spec: Callable[..., PretrainSpec], tmp_path: Path) -> None:
    folder = pretrain(spec(checkpoint="shipped"), Silent())
    card = json.loads((folder / "card.json").read_text(encoding="utf8"))
    assert "--checkpoint shipped" in card["command"] and len(card["initial_weights"]["checkpoint"]) == 64
    with pytest.raises(VlbenchError, match="holds another pretraining"):
        pretrain(spec(), Silent())
    same = tmp_path / "copy.safetensors"
    same.write_bytes(catalog.shipped_weights("cvlp", "tiny").read_bytes())  # type: ignore[union-attr]
    assert pretrain(spec(checkpoint=str(same)), Silent()) == folder, "the same bytes from another place"


def test_a_text_tower_is_loaded_and_nothing_else(spec: Callable[..., PretrainSpec], words: int, tmp_path: Path) -> None:
    bert = save_bert(tmp_path / "bert", words)
    got = load_file(pretrain(spec(init={"text": f"hf:{bert}"}), Silent()) / "model.safetensors")
    theirs = load_file(bert / "model.safetensors")
    value = got["backbone.network.encoder.layer.1.feed_forward.inner.weight"]
    assert torch.allclose(value, theirs["encoder.layer.1.intermediate.dense.weight"], atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "fault", "code"),
    [
        ({"init": {"vision": "x"}}, "--init vision is not for cvlp: it takes text", ExitCode.USAGE),
        ({"init": {"text": "x"}, "checkpoint": "shipped"}, "give one of them", ExitCode.USAGE),
        ({"model": "fake", "init": {"text": "x"}}, "no tower that can start so", ExitCode.USAGE),
        ({"init": {"text": "missing"}}, "--init text= missing holds no weights", ExitCode.WEIGHTS),
        ({"checkpoint": "missing"}, "holds no weights", ExitCode.WEIGHTS),
    ],
)
def test_faults_are_named(
    spec: Callable[..., PretrainSpec], fields: dict[str, object], fault: str, code: ExitCode
) -> None:
    with pytest.raises(VlbenchError, match=fault) as raised:
        pretrain(spec(**fields), Silent())
    assert raised.value.exit_code == code


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"num_hidden_layers": 2}, "lacks 16 of the tower's"),
        ({"hidden_size": 32}, "network of the same width"),
        ({"vocab_size": 9}, "another --size or --vocabulary"),
    ],
)
def test_towers_of_another_shape(
    spec: Callable[..., PretrainSpec], words: int, tmp_path: Path, changes: dict[str, int], fault: str
) -> None:
    bert = save_bert(tmp_path / "bert", words, **changes)
    with pytest.raises(VlbenchError, match=fault) as raised:
        pretrain(spec(init={"text": str(bert)}), Silent())
    assert raised.value.exit_code == ExitCode.WEIGHTS


def test_momentum_copies_start_from_the_loaded_weights(resources_of: Call, tmp_path: Path) -> None:
    for name in ("cvlp", "brivl"):
        card, resources = resources_of(name)
        built = catalog.load_pretraining(card, "tiny", resources, {})
        shipped = catalog.shipped_weights(name, "tiny")
        assert shipped is not None
        load_initial(built, card, Initial({"checkpoint": shipped}, {}), "", Silent())
        network = dict(built.backbone.network.named_parameters())  # type: ignore[attr-defined]
        copy = built.key.network if name == "cvlp" else built.key  # type: ignore[attr-defined]
        assert all(torch.equal(value, network[key]) for key, value in copy.named_parameters())


def test_copies_that_a_file_holds_are_loaded_as_well(resources_of: Call, tmp_path: Path) -> None:
    card, resources = resources_of("brivl")
    built: Any = catalog.load_pretraining(card, "tiny", resources, {})
    state = {
        name: value.clone() for name, value in built.state_dict().items() if name.startswith(("backbone.", "key."))
    }
    state = {name: value + 1 if name.startswith("key.") and value.is_floating_point() else value
             for name, value in state.items()}  # fmt: skip
    save_file(state, tmp_path / "w.safetensors")
    load_initial(built, card, Initial({"checkpoint": tmp_path / "w.safetensors"}, {}), "", Silent())
    name = "image.project.weight"
    assert torch.equal(built.key.state_dict()[name], state[f"key.{name}"])


@pytest.fixture
def resources_of(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The card of a model and the resources that its pretraining on the tiny world has."""

    def of(name: str) -> tuple[Any, Resources]:
        kept: list[Resources] = []
        make = module.make_resources

        def keep(*arguments: Any) -> Resources:
            kept.append(make(*arguments))
            return kept[-1]

        monkeypatch.setattr(module, "make_resources", keep)
        with pytest.raises(VlbenchError, match="has no objective nothing"):
            asked = {"model": name, "data_root": tiny_world, "output_path": tmp_path, "objectives": ("nothing",)}
            pretrain(PretrainSpec.model_validate(asked), Silent())
        return catalog.model_card(name), kept[-1]

    return of


def freeze(monkeypatch: pytest.MonkeyPatch, **config: int) -> None:
    """Let the tiny size of BriVL freeze layers, as the base size does."""
    found = catalog.model_card

    def frozen(name: str) -> Any:
        card = found(name)
        if name != "brivl":
            return card
        tiny = card.sizes["tiny"]
        sizes = {**card.sizes, "tiny": tiny.model_copy(update={"config": {**tiny.config, **config}})}
        return card.model_copy(update={"sizes": sizes})

    monkeypatch.setattr(catalog, "model_card", frozen)


def test_frozen_layers_must_be_loaded(
    spec: Callable[..., PretrainSpec], words: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, frozen_layers=2)
    fault = "parameters of this size are frozen and no weights were loaded into them .*--init vision=hf:FOLDER,text="
    with pytest.raises(VlbenchError, match=fault) as raised:
        pretrain(spec(model="brivl"), Silent())
    assert raised.value.exit_code == ExitCode.USAGE
    bert = save_bert(tmp_path / "bert", words)
    assert (pretrain(spec(model="brivl", init={"text": str(bert)}), Silent()) / "model.safetensors").is_file()
    freeze(monkeypatch, frozen_stages=1)
    with pytest.raises(VlbenchError, match=r"backbone\.network\.image\.cnn"):
        pretrain(spec(model="brivl", init={"text": str(bert)}, resume=False), Silent())


def test_run_rejects_what_would_stay_random(
    vlbench: Call, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, frozen_layers=1)
    command = ["run", "--task", "flickr30k_retrieval", "--model", "brivl", "--data-root", tiny_world, "--steps", 1,
               "--batch-size", 4, "--output-path", tmp_path / "runs", "--quiet"]  # fmt: skip
    done = vlbench(*command, "--checkpoint", "none")
    assert done.code == ExitCode.USAGE and "would stay at random values: give --checkpoint FILE" in done.err
    assert vlbench(*command, "--checkpoint", "none", "--dry-run").code == 0
    done = vlbench(*command)
    assert done.code == 0, done.err


def test_flags(vlbench: Call, tiny_world: Path, words: int, tmp_path: Path) -> None:
    bert = save_bert(tmp_path / "bert", words)
    command = ["pretrain", "--model", "lxmert", "--data-root", tiny_world, "--steps", 1, "--batch-size", 4, "--quiet"]
    done = vlbench(*command, "--init", f"text=hf:{bert}", "--output-path", tmp_path / "out")
    assert done.code == 0, done.err
    card = json.loads((Path(done.out.strip()) / "card.json").read_text(encoding="utf8"))
    assert "--init text=hf:bert" in card["command"] and str(tmp_path) not in card["command"]
    for text, fault in (("text", "no TOWER=WEIGHTS"), ("text=a,text=b", "more than once"), ("txet=a", "init")):
        done = vlbench(*command, "--init", text, "--output-path", tmp_path / "other")
        assert done.code == 2 and fault in done.err


@pytest.mark.parametrize("centred", [0.0, 1.0])
def test_weights_record_whether_their_pixels_are_centred(
    spec: Callable[..., PretrainSpec], tmp_path: Path, centred: float
) -> None:
    state = load_file(catalog.shipped_weights("vilt", "tiny"))  # type: ignore[arg-type]
    save_file(state | {"backbone.network.centred": torch.tensor(centred)}, tmp_path / "w.safetensors")
    folder = pretrain(spec(model="vilt", checkpoint=str(tmp_path / "w.safetensors")), Silent())
    assert load_file(folder / "model.safetensors")["backbone.network.centred"] == centred
    scratch = pretrain(spec(model="vilt", resume=False), Silent())
    assert load_file(scratch / "model.safetensors")["backbone.network.centred"] == 0
