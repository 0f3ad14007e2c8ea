"""Build the models to measure, with random weights (`ModelProfile.proposals` says how these affect a detector)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vlbench import catalog
from vlbench.core.backbone import Model
from vlbench.core.cards import ModelCard, Recipe, TaskCard
from vlbench.core.profile import ProfileSpec
from vlbench.data.regions.types import Regions
from vlbench.data.resources import Resources
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.heads.base import Head
from vlbench.heads.build import build_head
from vlbench.heads.generate import GenerateHead
from vlbench.heads.kinds import HeadKind, head_kind
from vlbench.models.detector.config import Layout, Rules
from vlbench.models.detector.network import FasterRCNN, random_network
from vlbench.profiling.architectures import complete_model
from vlbench.profiling.detection import DetectorStages
from vlbench.profiling.inputs import DecodedImages, DetectedRegions, write_vocabulary
from vlbench.profiling.stages import ModelInputs, StagedModel

OPEN_ANSWERS = 3129
"""Answers in the usual list for VQA v2, and classes of the head for an open task."""
REGIONS = 36


@dataclass(frozen=True)
class BuiltModel:
    """A model on its device, with the stores its inputs go through.

    network: the detector; None without one. load_seconds: how long building took.
    """

    card: ModelCard
    size: str
    model: Model
    head: Head
    network: FasterRCNN | None
    decoded: DecodedImages
    detected: DetectedRegions
    load_seconds: float

    def with_inputs(self, inputs: ModelInputs, device: torch.device) -> StagedModel:
        """The model over a batch of inputs, as stages."""
        detector = None
        if self.network is not None:
            detector = DetectorStages(self.network, self.decoded, self.detected, device)
        elif self.card.visual == "regions":
            self.detected.regions = {
                ref.key: _random_regions(number, self.detected.dim) for number, ref in enumerate(inputs.refs)
            }
        return StagedModel(self.model, self.head, inputs, self.decoded, detector, device)


def build_model(name: str, spec: ProfileSpec, folder: Path, device: torch.device) -> BuiltModel:
    """Build the model and a head for the task.

    name: as for `vlbench run --model`, or an architecture of transformers as `hf:CLIPModel`. folder: where missing
    preprocessing files may be written.

    Raises:
        VlbenchError: an unknown model, task or size, or a task that the model has no head for.
    """
    started = time.perf_counter()
    card, task = catalog.model_card(complete_model(name, folder)), catalog.task_card(spec.task)
    size = choose_size(card, spec.size)
    layout = Layout()
    decoded, detected = DecodedImages(), DetectedRegions(layout.dim)
    text = None if card.sizes[size].vocabulary == "its own" else _make_tokenizer(card, size, spec, folder)
    uses_regions = card.visual == "regions"
    resources = Resources(text, decoded, detected if uses_regions else None)
    torch.manual_seed(spec.seed)
    model = catalog.load_model(card, size, resources)
    head = _build_head(task, card, size, model)
    network = random_network(layout, Rules(least=REGIONS, most=REGIONS)) if uses_regions and spec.detector else None
    for module in (model, head, network):
        if isinstance(module, nn.Module):
            module.to(device).eval()
    return BuiltModel(card, size, model, head, network, decoded, detected, time.perf_counter() - started)


def choose_size(card: ModelCard, size: str | None) -> str:
    """The size asked for, else the base size. Raises VlbenchError if the model has no such size."""
    if size is not None and len(card.sizes) > 1:
        catalog.check_size(card, size)
        return size
    return "base" if "base" in card.sizes else next(iter(card.sizes))


def _build_head(task: TaskCard, card: ModelCard, size: str, model: Model) -> Head:
    """The head for the task, which shares no inputs: the same ones are repeated to fill large batches."""
    answers = () if task.is_retrieval else task.labels or tuple(str(number) for number in range(OPEN_ANSWERS))
    is_generative = head_kind(card, task) is HeadKind.GENERATE
    layout = card.head_layout(size)
    head = GenerateHead(task) if is_generative else build_head(task, card, model.width, answers, Recipe(), layout)
    head.inputs = head.inputs.unshared()
    return head


def _make_tokenizer(card: ModelCard, size: str, spec: ProfileSpec, folder: Path) -> TextEncoder:
    length = card.sizes[size].max_text
    if spec.vocabulary is not None:
        return TextEncoder.from_path(spec.vocabulary, length)
    return write_vocabulary(folder, length)


def _random_regions(number: int, dim: int) -> Regions:
    """36 boxes with random features, for region models that are measured without a detector; number: of the image."""
    rng = np.random.default_rng(number)
    corners = np.sort(rng.uniform(0, 500, (REGIONS, 2, 2)), axis=1).reshape(REGIONS, 4).astype(np.float32)
    ids, confidences = np.zeros(REGIONS, np.int64), np.zeros(REGIONS, np.float32)
    features = rng.standard_normal((REGIONS, dim)).astype(np.float32)
    return Regions(1000, 600, corners, features, ids, confidences, ids, confidences)
