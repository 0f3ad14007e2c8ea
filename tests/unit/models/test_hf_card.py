"""A card is read off a config.json; what is no model of images and texts is named."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers as hf

from vlbench import catalog
from vlbench.core.cards import ModelCard
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.models.hf.families import FAMILIES, GENERATIVE
from vlbench.models.hf.folder import processor_sha256, settings_sha256

Read = Callable[..., ModelCard]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """The card of a folder with that config.json and nothing else."""

    def read(**config: Any) -> ModelCard:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return catalog.model_card(f"hf:{tmp_path}")

    return read


def test_a_head_is_shaped_like_the_one_that_comes_along(read: Read, tmp_path: Path) -> None:
    card = read(model_type="vilt", architectures=["ViltForQuestionAnswering"], max_position_embeddings=50)
    assert (card.name, card.brings, card.pretrained) == (f"hf:{tmp_path.name}", ("classify",), True)
    assert (card.head.order, card.head.epsilon) == ("norm-activation", 1e-5)
    assert card.sizes["hf"].max_text == 50
    assert read(model_type="lxmert", architectures=["LxmertForQuestionAnswering"]).head.order == "activation-norm"


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"model_type": "vilt"}, 40),
        ({"model_type": "clip", "text_config": {"hidden_size": 8}}, 77),
        ({"model_type": "siglip", "text_config": {"max_position_embeddings": 32}}, 32),
        ({"model_type": "bridgetower"}, 512),
        ({"model_type": "altclip", "text_config": {"max_position_embeddings": 100}}, 98),
    ],
)
def test_the_longest_text_is_what_the_network_has_positions_for(
    read: Read, config: dict[str, Any], longest: int
) -> None:
    assert read(**config).sizes["hf"].max_text == longest


def test_the_librarys_own_defaults_are_those_of_the_table() -> None:
    for model_type, family in FAMILIES.items():
        if model_type == "vision-text-dual-encoder":
            continue  # its towers are anybody's
        config = hf.AutoConfig.for_model(model_type)
        found = getattr(config, "max_position_embeddings", None) or config.text_config.max_position_embeddings
        assert (model_type, found) == (model_type, family.positions)


def test_every_class_of_the_table_is_in_the_library() -> None:
    for family in FAMILIES.values():
        assert all(hasattr(hf, name) for name in (family.model, *family.heads))
    known = hf.models.auto.modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    for model_type in GENERATIVE:
        asked = inspect.signature(getattr(hf, known[model_type]).forward).parameters
        assert {"pixel_values", "logits_to_keep"} <= set(asked), model_type
        assert hf.models.auto.processing_auto.PROCESSOR_MAPPING_NAMES[model_type]


def test_two_towers_and_writers(read: Read) -> None:
    dual = read(model_type="clip", architectures=["CLIPModel"])
    assert (dual.ranks_by, dual.embeds, dual.brings) == ("dual", True, ("rank",))
    writer = read(model_type="llava", architectures=["LlavaForConditionalGeneration"])
    assert (writer.outputs, writer.backbone) == (("generate",), "vlbench.models.hf.generative:HFGenerative")


@pytest.mark.parametrize("config", [{"model_type": "bert"}, {"architectures": ["X"]}, {}])
def test_no_model_of_images_and_texts(read: Read, config: dict[str, Any]) -> None:
    with pytest.raises(VlbenchError, match=r"has the model_type '(bert|)', which takes no images"):
        read(**config)


def test_an_architecture_that_only_writes(read: Read) -> None:
    with pytest.raises(VlbenchError, match=r"is a BlipForQuestionAnswering, .* give a BlipForImageTextRet") as caught:
        read(model_type="blip", architectures=["BlipForQuestionAnswering"])
    assert "takes no images" not in caught.value.message and "one of vilt" not in caught.value.message


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_config_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(VlbenchError, match="give the folder that save_pretrained wrote") as caught:
        catalog.model_card(f"hf:{tmp_path}")
    assert caught.value.exit_code == ExitCode.WEIGHTS


def test_preprocessing_has_a_hash_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text("{}")
    first = processor_sha256(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert processor_sha256(tmp_path) == first
    (tmp_path / "preprocessor_config.json").write_text('{"size": 1}')
    assert processor_sha256(tmp_path) != first


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "generation_config.json",
        "chat_template.jinja",
        "additional_chat_templates/short.jinja",
        "tokenizer.model",
        "vocab.txt",
        "modeling_own.py",
    ],
)
def test_all_that_answers_depend_on_is_hashed_and_weights_are_not(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    found = [settings_sha256(tmp_path)]
    for content in ("a", "b"):
        (tmp_path / name).write_text(content)
        found.append(settings_sha256(tmp_path))
    assert len(set(found)) == 3
    (tmp_path / "model.safetensors").write_text("weights, which have a hash of their own")
    assert settings_sha256(tmp_path) == found[-1]
