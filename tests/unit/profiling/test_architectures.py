"""Architectures of transformers without weights: by name, or from a config.json alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vlbench import catalog
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.profile import ProfileSpec
from vlbench.models.detector.config import Layout
from vlbench.profiling.architectures import architecture_names, complete_model
from vlbench.profiling.profile import profile

MakeHF = Callable[..., Path]


@pytest.mark.parametrize("name", architecture_names())
def test_an_architecture_by_its_name(name: str, tmp_path: Path) -> None:
    made = complete_model(f"hf:{name}", tmp_path)
    card = catalog.model_card(made)
    assert card.name == f"hf:{name}"
    folder = Path(made.removeprefix("hf:"))
    assert (folder / "tokenizer.json").is_file()
    assert (folder / "preprocessor_config.json").is_file() == (card.visual != "regions")


def test_its_default_is_the_papers_base_size(tmp_path: Path) -> None:
    config = json.loads(
        (Path(complete_model("hf:CLIPModel", tmp_path).removeprefix("hf:")) / "config.json").read_text()
    )
    vision = config["vision_config"]
    assert (vision["hidden_size"], vision["num_hidden_layers"], vision["patch_size"]) == (768, 12, 32)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hf:ClipModel", "unknown architecture 'ClipModel': did you mean 'CLIPModel'"),
        ("hf:VisionTextDualEncoderModel", "unknown architecture"),
        ("hf:nothing-like-it", "known: AlignModel, .* hf:OWNER/NAME"),
    ],
)
def test_an_unknown_architecture_is_not_looked_up_on_the_hub(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(VlbenchError, match=says) as caught:
        complete_model(name, tmp_path)
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.slow
def test_visual_bert_accepts_the_detectors_regions() -> None:
    spec = ProfileSpec(models=("hf:VisualBertModel",), scenario=(), detector=False, picture=(96, 64))
    (one,) = profile(spec)[0].models
    assert not one.error and one.tokens == (36, 14)


def test_visual_berts_regions_are_as_wide_as_the_detectors(tmp_path: Path) -> None:
    made = Path(complete_model("hf:VisualBertModel", tmp_path).removeprefix("hf:"))
    assert json.loads((made / "config.json").read_text())["visual_embedding_dim"] == Layout().dim


def test_folders_of_one_name(make_hf: MakeHF, tmp_path: Path) -> None:
    """Also with the name of a folder that a profile makes for itself."""
    config = (make_hf("CLIPModel") / "config.json").read_bytes()
    (tmp_path / "work" / "images").mkdir(parents=True)
    made = []
    for parent in ("one", "other"):
        given = tmp_path / parent / "images"
        given.mkdir(parents=True)
        (given / "config.json").write_bytes(config)
        made.append(complete_model(f"hf:{given}", tmp_path / "work"))
    assert made[0] != made[1]
    assert [catalog.model_card(name).name for name in made] == ["hf:images", "hf:images"]
    assert list((tmp_path / "work" / "images").iterdir()) == []


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": "bert"}', None])
def test_messages_name_the_folder_that_was_given(content: str | None, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    if content is not None:
        (given / "config.json").write_text(content)
    with pytest.raises(VlbenchError, match="given") as caught:
        catalog.model_card(complete_model(f"hf:{given}", tmp_path))
    assert "config.json" in caught.value.message or "'bert'" in caught.value.message


@pytest.mark.parametrize("name", ["vilt", "hf:", "hf:somebody/clip"])
def test_other_names_are_unchanged(name: str, tmp_path: Path) -> None:
    assert complete_model(name, tmp_path) == name
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_embeddings_and_a_cross_encoder_searches_in_three_ways(make_hf: MakeHF) -> None:
    name = f"hf:{make_hf('BlipForImageTextRetrieval')}"
    spec = ProfileSpec(models=(name,), scenario=("retrieval",), iterations=2, precision=1.0, picture=(96, 64))
    (one,) = profile(spec)[0].models
    found = {(query.how, query.gallery): query for query in one.retrieval}
    assert {how for how, _ in found} == {"dual", "two-stage", "cross-encoder"}
    assert {size for how, size in found if found[how, size].measured and how == "cross-encoder"} == {100}
    assert not any(query.measured for (how, _), query in found.items() if how == "two-stage")
    pair = (found["cross-encoder", 10_000].ms - found["cross-encoder", 1_000].ms) / 9_000
    assert found["two-stage", 1_000].ms == pytest.approx(found["dual", 1_000].ms + 100 * pair)


@pytest.mark.parametrize("architecture", ["CLIPModel", "BlipForImageTextRetrieval", "ViltModel"])
def test_a_config_alone_is_measured(architecture: str, make_hf: MakeHF, tmp_path: Path) -> None:
    """Missing preprocessing is generated outside the folder, which is not changed; a complete one is used directly."""
    whole = make_hf(architecture)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "config.json").write_bytes((whole / "config.json").read_bytes())
    names = (f"hf:{whole}", f"hf:{alone}")
    spec = ProfileSpec(models=names, iterations=2, seconds=0.0, max_seconds=0.1, picture=(96, 64))
    first, second = profile(spec)[0].models
    assert not first.error and not second.error and second.latency is not None
    assert first.parameters is not None and second.parameters is not None
    assert first.parameters.total == second.parameters.total
    assert [path.name for path in alone.iterdir()] == ["config.json"]
