"""From a model's name to what can be measured, with random weights; `ModelProfile.proposals` is what they change."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from vlbench import catalog
from vlbench.core.backbone import Backbone, Generator
from vlbench.core.cards import ModelCard, Recipe, TaskCard
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import ImageRef
from vlbench.core.profile import ProfileSpec
from vlbench.data.regions.types import Regions
from vlbench.data.resources import Resources
from vlbench.data.text.tokenizer import TextEncoder
from vlbench.heads.base import Head
from vlbench.heads.build import build_head
from vlbench.models.detector.config import Layout, Rules
from vlbench.models.detector.network import FasterRCNN, random_network
from vlbench.profiling.architectures import completed
from vlbench.profiling.detection import Detection
from vlbench.profiling.inputs import Decoded, Detected, made_up_vocabulary
from vlbench.profiling.stages import Batch, SeeReadFuse, Subject, Writing

OPEN_ANSWERS = 3129
"""Of VQA's usual list, which a classifier over open answers is as wide as."""
REGIONS = 36


@dataclass(frozen=True)
class Opened:
    """A model on its device. head: None of one that writes. network: the detector's; None without one."""

    card: ModelCard
    size: str
    model: Backbone | Generator
    head: Head | None
    network: FasterRCNN | None
    decoded: Decoded
    detected: Detected
    load_seconds: float

    def subject(self, batch: Batch, device: torch.device) -> Subject:
        """The model over a batch."""
        if self.head is None:
            return Writing(cast(Generator, self.model), batch, self.decoded, device)
        if self.network is not None:
            detection = Detection(self.network, self.decoded, self.detected, device)
            return SeeReadFuse(cast(Backbone, self.model), self.head, batch, self.decoded, detection, device)
        if self.card.visual == "regions":
            self.detected.regions = {ref.key: _any_regions(number, self.detected.dim) for number, ref in _each(batch)}
        return SeeReadFuse(cast(Backbone, self.model), self.head, batch, self.decoded, None, device)


def open_model(name: str, spec: ProfileSpec, folder: Path, device: torch.device) -> Opened:
    """Build the model and a head for the task.

    Args:
        name: as for `vlbench run --model`, or an architecture of transformers as `hf:CLIPModel`.
        folder: where what is made up may be written.

    Raises:
        VlbenchError: names nobody knows, a size that is not there, or a task that the model has no head for.
    """
    started = time.perf_counter()
    card, task = catalog.model_card(completed(name, folder)), catalog.task_card(spec.task)
    size = chosen_size(card, spec.size)
    layout = Layout()
    decoded, detected = Decoded(), Detected(layout.dim)
    words = None if card.sizes[size].vocabulary == "its own" else _words(card, size, spec, folder)
    looks_at_regions = card.visual == "regions"
    resources = Resources(words, decoded, detected if looks_at_regions else None)
    torch.manual_seed(spec.seed)
    model = catalog.load_model(card, size, resources)
    head = _head(task, card, size, model)
    network = random_network(layout, Rules(least=REGIONS, most=REGIONS)) if looks_at_regions and spec.detector else None
    for module in (model, head, network):
        if isinstance(module, nn.Module):
            module.to(device).eval()
    return Opened(card, size, model, head, network, decoded, detected, time.perf_counter() - started)


def chosen_size(card: ModelCard, wanted: str | None) -> str:
    """The size asked for, else the paper's. Raises VlbenchError if there is no such size."""
    if wanted is not None and len(card.sizes) > 1:
        catalog.check_size(card, wanted)
        return wanted
    return "base" if "base" in card.sizes else next(iter(card.sizes))


def _head(task: TaskCard, card: ModelCard, size: str, model: Backbone) -> Head | None:
    if "generate" in card.outputs and task.output not in card.outputs:
        if task.output == "rank":
            raise VlbenchError(f"{card.name} writes and ranks nothing: profile it with --task vqa2")
        return None
    labels = task.labels or tuple(str(number) for number in range(OPEN_ANSWERS))
    answers = () if task.output == "rank" else labels
    return build_head(task, card, model.width, answers, Recipe(), card.head_layout(size))


def _words(card: ModelCard, size: str, spec: ProfileSpec, folder: Path) -> TextEncoder:
    length = card.sizes[size].max_text
    if spec.vocabulary is not None:
        return TextEncoder.from_path(spec.vocabulary, length)
    return made_up_vocabulary(folder, length)


def _each(batch: Batch) -> Sequence[tuple[int, ImageRef]]:
    return list(enumerate(batch.refs))


def _any_regions(number: int, dim: int) -> Regions:
    """36 boxes of random numbers, for region models that are measured without a detector."""
    draw = np.random.default_rng(number)
    corners = np.sort(draw.uniform(0, 500, (REGIONS, 2, 2)), axis=1).reshape(REGIONS, 4).astype(np.float32)
    ids, confidences = np.zeros(REGIONS, np.int64), np.zeros(REGIONS, np.float32)
    features = draw.standard_normal((REGIONS, dim)).astype(np.float32)
    return Regions(1000, 600, corners, features, ids, confidences, ids, confidences)
