"""A model with its inputs, cut into the stages that are measured.

Shapes: B examples, I images of each, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, cast

import torch
from PIL.Image import Image
from torch import Tensor, nn

from vlbench.core.backbone import Backbone, DualEncoder, Features, Generator, Tensors, Textual, Visual
from vlbench.core.examples import ImageRef, Prompt, Query
from vlbench.core.head import Head
from vlbench.core.profile import PIPELINE
from vlbench.heads.dual import DualHead
from vlbench.profiling.detection import DetectorStages
from vlbench.profiling.inputs import DecodedImages
from vlbench.profiling.timing import Stage

LONGEST = 20
"""Tokens that a generative model may generate for an answer, as in a run."""
Value = TypeVar("Value")


@dataclass(frozen=True)
class LoadedInputs:
    """The inputs of a batch as a data loader returns them, on the CPU.

    images, texts: tensors. decoded: decoded images by key, instead of tensors, where a detector comes first.
    """

    images: Tensors = field(default_factory=dict)
    texts: Tensors = field(default_factory=dict)
    decoded: Mapping[str, Image] = field(default_factory=dict)


class StagedModel(Protocol):
    """A model over one batch of inputs, as stages to measure. modules: all modules that its stages run, by name."""

    modules: Mapping[str, nn.Module]

    def stages(self) -> list[Stage]:
        """The stages in order, all over the same batch."""
        ...

    def load_inputs(self) -> LoadedInputs:
        """Decode and prepare the inputs; may run in another process."""
        ...

    def use_inputs(self, loaded: LoadedInputs) -> list[Stage]:
        """Take over what `load_inputs` returned; returns the stages that are left to run."""
        ...

    def count_tokens(self) -> tuple[int, int] | None:
        """Tokens of the image and of the text; None where the model has no such division."""
        ...


class ModelInputs:
    """Images and texts of B examples: refs [B * I], texts [B]. images_per_example: I."""

    def __init__(self, refs: Sequence[ImageRef], texts: Sequence[str]) -> None:
        self.refs, self.texts = list(refs), list(texts)
        self.images_per_example = len(self.refs) // len(self.texts)


class StagedBackbone:
    """A backbone with a head, over one batch. detector: the stages that compute regions; None without a detector."""

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        inputs: ModelInputs,
        decoded: DecodedImages,
        detector: DetectorStages | None,
        device: torch.device,
    ) -> None:
        self.backbone, self.head, self.inputs = backbone, head, inputs
        self.decoded, self.detector, self.device = decoded, detector, device
        self.modules: Mapping[str, nn.Module] = {"backbone": _as_module(backbone), "head": _as_module(head)}
        if detector is not None:
            self.modules = {**self.modules, "detector": detector.network}
        self.images: Tensors = {}
        self.texts: Tensors = {}
        self.visual: Visual | None = None
        self.textual: Textual | None = None
        self.features: Features | None = None

    def stages(self) -> list[Stage]:
        """Decoding and preprocessing, the detector's stages if there is one, then the model's own."""
        stages = [Stage("decode", lambda: self.decoded.decode(self.inputs.refs))]
        if self.detector is not None:
            stages += self.detector.stages(self.inputs.refs)
        stages += [Stage("preprocess", self._prepare), Stage("see", self._see), Stage("read", self._read)]
        if not isinstance(self.head, DualHead):
            stages.append(Stage("fuse", self._fuse))
        return [*stages, Stage("head", self._answer)]

    def count_tokens(self) -> tuple[int, int] | None:
        """Tokens of the image and of the text, as they enter the fusion; None before the stages have run."""
        if self.visual is None or self.textual is None:
            return None
        return int(self.visual.mask[0].sum()), int(self.textual.mask[0].sum())

    def load_inputs(self) -> LoadedInputs:
        """Decoded images and, without a detector, the prepared tensors."""
        self.decoded.decode(self.inputs.refs)
        if self.detector is not None:
            return LoadedInputs(decoded=self.decoded.images)
        refs, texts = self.inputs.refs, self.inputs.texts
        return LoadedInputs(self.backbone.prepare_images(refs), self.backbone.prepare_texts(texts))

    def use_inputs(self, loaded: LoadedInputs) -> list[Stage]:
        """All stages but decoding with a detector, else the model's own."""
        if self.detector is not None:
            self.decoded.images = dict(loaded.decoded)
            return self.stages()[1:]
        self.images, self.texts = _on(self.device, loaded.images), _on(self.device, loaded.texts)
        return [stage for stage in self.stages() if stage.name not in PIPELINE]

    def _prepare(self) -> None:
        self.images = _on(self.device, self.backbone.prepare_images(self.inputs.refs))
        self.texts = _on(self.device, self.backbone.prepare_texts(self.inputs.texts))

    def _see(self) -> None:
        slots = torch.arange(len(self.inputs.refs), device=self.device) % self.inputs.images_per_example
        self.visual = self.backbone.see(self.images, slots)

    def _read(self) -> None:
        self.textual = self.backbone.read(self.texts)

    def _fuse(self) -> None:
        visual, textual = _result(self.visual, "see"), _result(self.textual, "read")
        if self.inputs.images_per_example > 1:
            rows = torch.arange(len(self.inputs.refs), device=self.device) // self.inputs.images_per_example
            textual = textual.take(rows)
        self.features = self.backbone.fuse(visual, textual)

    def _answer(self) -> Tensor:
        if not isinstance(self.head, DualHead):
            return self.head(_result(self.features, "fuse"))
        encoder = cast(DualEncoder, self.backbone)
        visual, textual = _result(self.visual, "see"), _result(self.textual, "read")
        logits: Tensor = self.head(encoder.embed_images(visual), encoder.embed_texts(textual))
        return logits


class StagedGenerator:
    """A generative model over one batch: images and prompt are one input, answers have up to 20 tokens."""

    def __init__(self, model: Generator, inputs: ModelInputs, decoded: DecodedImages, device: torch.device) -> None:
        self.model, self.inputs, self.decoded, self.device = model, inputs, decoded, device
        self.modules: Mapping[str, nn.Module] = {"model": _as_module(model)}
        self.prompts: Tensors = {}

    def stages(self) -> list[Stage]:
        """Decoding, preprocessing, and generation."""
        return [
            Stage("decode", lambda: self.decoded.decode(self.inputs.refs)),
            Stage("preprocess", self._prepare),
            Stage("generate", lambda: self.model.generate(self.prompts, LONGEST)),
        ]

    def count_tokens(self) -> tuple[int, int] | None:
        """None: images and text are one sequence."""
        return None

    def load_inputs(self) -> LoadedInputs:
        """The prepared prompts."""
        self.decoded.decode(self.inputs.refs)
        return LoadedInputs(self._prepare_prompts())

    def use_inputs(self, loaded: LoadedInputs) -> list[Stage]:
        """Generation alone."""
        self.prompts = _on(self.device, loaded.images)
        return self.stages()[2:]

    def _prepare(self) -> None:
        self.prompts = _on(self.device, self._prepare_prompts())

    def _prepare_prompts(self) -> Tensors:
        count, refs = self.inputs.images_per_example, self.inputs.refs
        prompts = [
            Prompt(Query(tuple(refs[row * count : (row + 1) * count]), text))
            for row, text in enumerate(self.inputs.texts)
        ]
        return self.model.prepare_prompts(prompts)


def _on(device: torch.device, tensors: Tensors) -> Tensors:
    return {name: value.to(device) for name, value in tensors.items()}


def _as_module(part: object) -> nn.Module:
    """The part of a model, which is an nn.Module by its protocol."""
    if not isinstance(part, nn.Module):
        raise TypeError(f"{type(part).__name__} is no torch.nn.Module")
    return part


def _result(value: Value | None, stage: str) -> Value:
    """The result of a stage that has run."""
    if value is None:
        raise RuntimeError(f"the stage {stage} has not run")
    return value
