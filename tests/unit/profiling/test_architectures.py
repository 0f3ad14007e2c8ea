"""Architectures of transformers without weights: by name, or from a config.json alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vlbench import catalog
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.profile import ProfileSpec
from vlbench.profiling.architectures import architectures, completed
from vlbench.profiling.profile import profile

MakeHF = Callable[..., Path]


@pytest.mark.parametrize("name", sorted({*architectures()} - {"VisionTextDualEncoderModel"}))
def test_an_architecture_by_its_name(name: str, tmp_path: Path) -> None:
    card = catalog.model_card(completed(f"hf:{name}", tmp_path))
    assert card.name == f"hf:{name}"
    assert (tmp_path / name / "tokenizer.json").is_file()
    assert (tmp_path / name / "preprocessor_config.json").is_file() == (card.visual != "regions")


def test_its_default_is_the_papers_base_size(tmp_path: Path) -> None:
    config = json.loads((Path(completed("hf:CLIPModel", tmp_path).removeprefix("hf:")) / "config.json").read_text())
    vision = config["vision_config"]
    assert (vision["hidden_size"], vision["num_hidden_layers"], vision["patch_size"]) == (768, 12, 32)


def test_an_architecture_without_a_default(tmp_path: Path) -> None:
    with pytest.raises(VlbenchError, match="hf:VisionTextDualEncoderModel has no default") as caught:
        completed("hf:VisionTextDualEncoderModel", tmp_path)
    assert caught.value.exit_code == ExitCode.WEIGHTS


@pytest.mark.parametrize("name", ["vilt", "hf:", "hf:somebody/clip", "hf:CLIPMode"])
def test_other_names_stay(name: str, tmp_path: Path) -> None:
    assert completed(name, tmp_path) == name
    assert list(tmp_path.iterdir()) == []


def test_what_embeds_and_compares_pairs_searches_in_three_ways(make_hf: MakeHF) -> None:
    name = f"hf:{make_hf('BlipForImageTextRetrieval')}"
    spec = ProfileSpec(models=(name,), scenario=("retrieval",), iterations=2, max_seconds=1.0, picture=(96, 64))
    (one,) = profile(spec)[0].models
    found = {(query.how, query.gallery): query for query in one.retrieval}
    assert {how for how, _ in found} == {"dual", "two-stage", "cross-encoder"}
    assert {size for how, size in found if found[how, size].measured and how == "cross-encoder"} == {100}
    pair = (found["cross-encoder", 10_000].ms - found["cross-encoder", 1_000].ms) / 9_000
    assert found["two-stage", 1_000].ms == pytest.approx(found["dual", 1_000].ms + 100 * pair)


@pytest.mark.parametrize("architecture", ["CLIPModel", "BlipForImageTextRetrieval", "ViltModel"])
def test_a_config_alone_is_measured(architecture: str, make_hf: MakeHF, tmp_path: Path) -> None:
    """The preprocessing is made up, and the folder stays as it is; a whole folder is taken as it is."""
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
