"""Fixtures for tests of models: a small CVLP over random regions, and the sizes of golden cases."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vlbench import catalog
from vlbench.core.cards import ModelCard, Recipe, SizeCard
from vlbench.core.examples import ImageRef
from vlbench.core.validate import parse
from vlbench.data.regions.types import Regions
from vlbench.data.resources import Resources
from vlbench.data.text.tokenizer import SPECIAL, TextEncoder
from vlbench.engine.learner import Learner
from vlbench.engine.weights.loading import Wanted, load_weights
from vlbench.heads.build import build_head
from vlbench.models.cvlp.backbone import CVLP
from vlbench.models.layers.bert import initialize
from vlbench.models.layers.crossmodal import CrossModalConfig

WORDS = "the left picture has two red squares and one blue circle above a green star"

COUNTS = {"few": 2, "some": 4, "many": 9, "none": 0}


class RandomRegions:
    """Regions drawn from the image's key; `few`, `many` and `none` say how many."""

    dim = 5

    def get(self, ref: ImageRef) -> Regions:
        rng, n = np.random.default_rng(zlib.crc32(ref.key.encode())), COUNTS[ref.key.split("-")[0]]
        width, height = 200, 50
        corners = rng.uniform(0, 1, (n, 4)) * [width, height, width, height]
        none, zero = np.zeros(n, np.int64), np.zeros(n, np.float32)
        features = rng.normal(size=(n, self.dim)).astype(np.float32)
        return Regions(width, height, corners.astype(np.float32), features, none, zero, none, zero)


class NoImages:
    def open(self, ref: ImageRef) -> Image.Image:
        raise AssertionError("no image may be opened")


@dataclass(frozen=True)
class NoRegions:
    dim: int

    def get(self, ref: ImageRef) -> Regions:
        raise AssertionError("region features are given")


@pytest.fixture(scope="session")
def resources() -> Resources:
    return Resources(TextEncoder.train([WORDS], 100, 20), NoImages(), RandomRegions())


@pytest.fixture
def config(resources: Resources) -> CrossModalConfig:
    return CrossModalConfig(
        language_layers=3,
        region_layers=2,
        cross_layers=2,
        width=16,
        heads=4,
        inner=32,
        positions=24,
        max_regions=6,
        dropout=0.1,
        attention_dropout=0.1,
        initial_std=0.02,
        standardise=False,
        first_rows="trained",
        vocab_size=resources.text.vocab_size,
        region_dim=RandomRegions.dim,
    )


@pytest.fixture
def cvlp(config: CrossModalConfig, resources: Resources) -> CVLP:
    torch.manual_seed(0)
    model = CVLP(config, resources).eval()
    initialize(model, std=0.5)  # large weights, so that a wrong mask or order shows
    return model


@pytest.fixture
def vocabulary_of(tmp_path: Path) -> Callable[[int, int], TextEncoder]:
    """Make a tokenizer with so many words, for texts of so many tokens."""

    def make(words: int, max_text: int) -> TextEncoder:
        path = tmp_path / "vocab.txt"
        path.write_text("\n".join([*SPECIAL, *(f"word{number}" for number in range(words - len(SPECIAL)))]))
        return TextEncoder.from_vocab(path, max_text)

    return make


@pytest.fixture
def build_golden(vocabulary_of: Callable[[int, int], TextEncoder]) -> Callable[..., tuple[ModelCard, Resources]]:
    """Make a model's card with the size `golden` of an official configuration, and resources that fit it.

    regions: numbers that describe a region, of a model over regions.
    """

    def build(model: str, size: SizeCard, words: int, regions: int | None = None) -> tuple[ModelCard, Resources]:
        card = catalog.model_card(model).model_copy(update={"sizes": {"golden": size}})
        source = None if regions is None else NoRegions(regions)
        return card, Resources(vocabulary_of(words, size.max_text), NoImages(), source)

    return build


@pytest.fixture
def load_finetuned() -> Callable[[ModelCard, Resources, Any, str, Path], Learner]:
    """Build the size `golden` of a card under a task's head, and load an official file that fits it wholly.

    case: a `golden_cases.GoldenCase`, whose logits say how many answers the head has.
    """

    def make(card: ModelCard, resources: Resources, case: Any, task: str, file: Path) -> Learner:
        labels = tuple(str(number) for number in range(case.outputs["logits"].shape[1]))
        backbone = catalog.load_model(card, "golden", resources)
        head = build_head(catalog.task_card(task), card, backbone.width, labels, Recipe())
        learner = Learner(backbone, head).eval()
        report = load_weights(learner, file, Wanted(card, with_head=True))
        assert (report.missing, report.unexpected, report.absent) == (0, 0, ())
        assert report.matched == report.converted == len(learner.state_dict())
        return learner

    return make


@pytest.fixture
def card_of() -> Callable[[str], ModelCard]:
    import yaml

    import vlbench.models

    folder = Path(vlbench.models.__file__).parent

    def read(name: str) -> ModelCard:
        path = folder / name / "model.yaml"
        return parse(ModelCard, yaml.safe_load(path.read_text()), str(path))

    return read


@pytest.fixture
def ref() -> Callable[[str], ImageRef]:
    return lambda key: ImageRef(Path("nowhere") / key, key)
