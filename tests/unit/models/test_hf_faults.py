"""Folders of transformers with one file that is wrong: each is named in one sentence, with the exit code of weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL.Image import new
from safetensors.torch import load_file, save_file

from vlbench import catalog
from vlbench.core.backbone import Pretrained
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.examples import ImageRef, Prompt, Query
from vlbench.data.images.load import ImageFiles
from vlbench.data.resources import Loading, Resources

Copy = Callable[[str], Path]


@pytest.fixture
def copy(make_hf: Callable[..., Path], make_vlm: Callable[[str], Any], tmp_path: Path) -> Copy:
    """A copy, which may be spoilt, of a model by its architecture or the type of a generative one."""

    def copy(name: str) -> Path:
        whole = make_vlm(name).folder if name.islower() else make_hf(name)
        return Path(shutil.copytree(whole, tmp_path / "model"))

    return copy


def load(folder: Path, loading: Loading | None = None) -> Any:
    resources = Resources(None, ImageFiles(), loading=loading or Loading())
    model: Any = catalog.load_model(catalog.model_card(f"hf:{folder}"), "hf", resources)
    assert isinstance(model, Pretrained)
    model.load_pretrained()
    return model


def rejection(folder: Path, loading: Loading | None = None) -> str:
    with pytest.raises(VlbenchError) as caught:
        load(folder, loading)
    assert caught.value.exit_code == ExitCode.WEIGHTS and "\n" not in caught.value.message
    assert caught.value.message.startswith("hf:model ")
    return caught.value.message


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("ViltModel", {"hidden_size": 33}, "not a multiple of the number of attention heads"),
        ("ViltModel", {"hidden_size": "x"}, "expected int"),
        ("ViltModel", {"hidden_act": "swoosh"}, "swoosh"),
        ("CLIPModel", {"text_config": 3}, "text_config"),
        ("CLIPModel", {"vision_config": {"patch_size": 0}}, "ZeroDivisionError"),
        ("llava", {"text_config": {"hidden_size": 33}}, "not a multiple of the number of attention heads"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_config_that_makes_no_network(
    copy: Copy, name: str, values: dict[str, object], said: str, at_once: bool
) -> None:
    folder = copy(name)
    change(folder / "config.json", **values)
    message = rejection(folder, Loading(at_once=at_once))
    assert "has a config.json that " in message and said in message


@pytest.mark.parametrize("name", ["CLIPModel", "llava"])
def test_tensors_of_another_shape_are_named(copy: Copy, name: str) -> None:
    folder = copy(name)
    weights = load_file(folder / "model.safetensors")
    other = next(name for name, value in weights.items() if value.ndim == 2)
    save_file(weights | {other: torch.zeros(3, 5)}, folder / "model.safetensors", {"format": "pt"})
    message = rejection(folder)
    assert "holds 1 tensors of another shape" in message
    shapes = f"is [3, 5] in the file and {list(weights[other].shape)} here)"
    assert f"{other.removeprefix('language_model.')} {shapes}" in message


@pytest.mark.parametrize(
    "template",
    [
        "{% for message in messages %}",
        "{{ raise_exception('not like this') }}",
        "{{ messages[0]['content'] + '?' }}",
        "{{ messages[0]['content'].strip() }}",
        "USER: {{ messages[0]['content'] }}",
    ],
)
def test_a_chat_template_without_a_place_for_images(copy: Copy, template: str) -> None:
    folder = copy("qwen2_vl")
    (folder / "chat_template.jinja").write_text(template)
    assert "has a chat template that cannot be filled in with images and texts" in rejection(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"eos_token_id": "x"}', '{"eos_token_id": [[1]]}'])
def test_a_broken_generation_config(copy: Copy, content: str) -> None:
    folder = copy("llava")
    (folder / "generation_config.json").write_text(content)
    assert "has a generation_config.json that does not load" in rejection(folder)


@pytest.mark.parametrize("name", ["CLIPModel", "ViltModel", "SiglipModel"])
def test_texts_are_filled_up_by_the_end_of_a_text_where_nothing_else_is_named(copy: Copy, name: str) -> None:
    folder = copy(name)
    settings = folder / "tokenizer_config.json"
    change(settings, pad_token=None, eos_token="[SEP]")
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    read = load(folder).prepare_texts(["a", "a red circle"])
    end = 3
    assert read["ids"][0][~read["mask"][0]].unique().tolist() == [end]
    change(settings, eos_token=None)
    assert "has a tokenizer without a pad_token" in rejection(folder)


@pytest.mark.parametrize("name", ["CLIPModel", "BridgeTowerForImageAndTextRetrieval", "BlipForImageTextRetrieval"])
def test_an_image_processor_of_another_size(copy: Copy, name: str) -> None:
    folder = copy(name)
    (folder / "preprocessor_config.json").write_text("{}")
    assert "has an image processor that does not fit its network" in rejection(folder)


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_images_of_another_size_for_a_model_that_writes(copy: Copy, tmp_path: Path, name: str) -> None:
    folder, image = copy(name), tmp_path / "a.png"
    own = folder / ("processor_config.json" if name == "llava" else "preprocessor_config.json")
    kind = {"image_processor_type": "CLIPImageProcessor"}
    change(own, image_processor=kind) if name == "llava" else own.write_text("{}")
    new("RGB", (40, 30)).save(image)
    model = load(folder)
    prompts = model.prepare_prompts([Prompt(Query((ImageRef(image, "a"),), "Is it red?"))])
    for ask in (lambda: model.generate(prompts, 2), lambda: model.likelihood(prompts, ["yes"])):
        with pytest.raises(VlbenchError, match="has a processor that does not fit its network") as caught:
            ask()
        assert caught.value.exit_code == ExitCode.WEIGHTS


@pytest.mark.parametrize("name", ["CLIPModel", "ViltForQuestionAnswering", "FlavaModel", "AltCLIPModel"])
def test_weights_that_come_at_once_are_not_drawn_first(copy: Copy, name: str) -> None:
    folder = copy(name)
    resources = Resources(None, ImageFiles(), loading=Loading(at_once=True))
    model: Any = catalog.load_model(catalog.model_card(f"hf:{folder}"), "hf", resources)
    assert all(parameter.is_meta for parameter in model.parameters())
    model.load_pretrained()
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    expected = load(folder).state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
