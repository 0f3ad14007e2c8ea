"""A small CVLP over made-up regions."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vlbench import catalog
from vlbench.core.cards import ModelCard, Recipe
from vlbench.core.examples import ImageRef
from vlbench.core.validate import parse
from vlbench.data.regions.types import Regions
from vlbench.data.resources import Resources
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.engine.evaluators.learner import Learner
from vlbench.engine.weights.loading import Wanted, load_weights
from vlbench.heads.build import build_head
from vlbench.models.cvlp.backbone import CVLP
from vlbench.models.layers.bert import initialize
from vlbench.models.layers.crossmodal import CrossModalConfig

WORDS = "the left picture has two red squares and one blue circle above a green star"

COUNTS = {"few": 2, "some": 4, "many": 9, "none": 0}


class Made:
    """Regions drawn from the picture's key; `few`, `many` and `none` say how many."""

    dim = 5

    def get(self, ref: ImageRef) -> Regions:
        rng, n = np.random.default_rng(zlib.crc32(ref.key.encode())), COUNTS[ref.key.split("-")[0]]
        width, height = 200, 50
        corners = rng.uniform(0, 1, (n, 4)) * [width, height, width, height]
        none, zero = np.zeros(n, np.int64), np.zeros(n, np.float32)
        features = rng.normal(size=(n, self.dim)).astype(np.float32)
        return Regions(width, height, corners.astype(np.float32), features, none, zero, none, zero)


class Pictures:
    def open(self, ref: ImageRef) -> Image.Image:
        raise AssertionError("a region model opens no picture")


@pytest.fixture(scope="session")
def resources() -> Resources:
    return Resources(TextEncoder.train([WORDS], 100, 20), Pictures(), Made())


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
        region_dim=Made.dim,
    )


@pytest.fixture
def cvlp(config: CrossModalConfig, resources: Resources) -> CVLP:
    torch.manual_seed(0)
    model = CVLP(config, resources).eval()
    initialize(model, std=0.5)  # large weights, so that a wrong mask or order shows
    return model


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
