"""A model with its inputs, cut into the stages that are measured.

Shapes: B examples, I pictures of each, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from PIL.Image import Image
from torch import Tensor, nn

from vlbench.core.backbone import Backbone, DualEncoder, Features, Generator, Tensors, Textual, Visual
from vlbench.core.examples import ImageRef, Prompt, Query
from vlbench.core.profile import PIPELINE
from vlbench.heads.base import Head
from vlbench.heads.dual import DualHead
from vlbench.profiling.detection import Detection
from vlbench.profiling.inputs import Decoded
from vlbench.profiling.timing import Stage

LONGEST = 20
"""Tokens that a model may write for an answer, as in a run."""


@dataclass(frozen=True)
class Loaded:
    """A batch as a loader hands it over, on the CPU: tensors, or decoded pictures where a detector comes first."""

    images: Tensors = field(default_factory=dict)
    words: Tensors = field(default_factory=dict)
    pictures: Mapping[str, Image] = field(default_factory=dict)


class Subject(Protocol):
    """What can be measured. modules: all that its stages run, by name. stages: in order, over the same batch.

    load: what may happen in another process. take: what that made; returns the stages that are left to do.
    """

    modules: Mapping[str, nn.Module]

    def stages(self) -> list[Stage]: ...

    def load(self) -> Loaded: ...

    def take(self, loaded: Loaded) -> list[Stage]: ...

    def tokens(self) -> tuple[int, int] | None: ...


class Batch:
    """Pictures and texts of B examples: refs [B * I], texts [B]."""

    def __init__(self, refs: Sequence[ImageRef], texts: Sequence[str]) -> None:
        self.refs, self.texts = list(refs), list(texts)
        self.pictures = len(self.refs) // len(self.texts)


class SeeReadFuse:
    """A backbone with a head, over one batch. detection: what makes the regions; None where none are looked at."""

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        batch: Batch,
        decoded: Decoded,
        detection: Detection | None,
        device: torch.device,
    ) -> None:
        self.backbone, self.head, self.batch = backbone, head, batch
        self.decoded, self.detection, self.device = decoded, detection, device
        self.modules: Mapping[str, nn.Module] = {"backbone": cast(nn.Module, backbone), "head": cast(nn.Module, head)}
        if detection is not None:
            self.modules = {**self.modules, "detector": detection.network}
        self.images: Tensors = {}
        self.words: Tensors = {}
        self.seen: Visual | None = None
        self.was_read: Textual | None = None
        self.features: Features | None = None

    def stages(self) -> list[Stage]:
        """Decoding and preprocessing, the detector's where there is one, then the model's own."""
        found = [Stage("decode", lambda: self.decoded.decode(self.batch.refs))]
        if self.detection is not None:
            found += self.detection.stages(self.batch.refs)
        found += [Stage("preprocess", self._prepare), Stage("see", self._see), Stage("read", self._read)]
        if not isinstance(self.head, DualHead):
            found.append(Stage("fuse", self._fuse))
        return [*found, Stage("head", self._answer)]

    def tokens(self) -> tuple[int, int] | None:
        """Of the picture and of the text, as the fusion meets them; None before the stages have run."""
        if self.seen is None or self.was_read is None:
            return None
        return int(self.seen.mask[0].sum()), int(self.was_read.mask[0].sum())

    def load(self) -> Loaded:
        """Decoded and, without a detector, prepared."""
        self.decoded.decode(self.batch.refs)
        if self.detection is not None:
            return Loaded(pictures=self.decoded.pictures)
        return Loaded(self.backbone.prepare_images(self.batch.refs), self.backbone.prepare_texts(self.batch.texts))

    def take(self, loaded: Loaded) -> list[Stage]:
        """All but decoding where there is a detector, else the model's own."""
        if self.detection is not None:
            self.decoded.pictures = dict(loaded.pictures)
            return self.stages()[1:]
        self.images, self.words = _on(self.device, loaded.images), _on(self.device, loaded.words)
        return [stage for stage in self.stages() if stage.name not in PIPELINE]

    def _prepare(self) -> None:
        batch = self.batch
        self.images = _on(self.device, self.backbone.prepare_images(batch.refs))
        self.words = _on(self.device, self.backbone.prepare_texts(batch.texts))

    def _see(self) -> None:
        slots = torch.arange(len(self.batch.refs), device=self.device) % self.batch.pictures
        self.seen = self.backbone.see(self.images, slots)

    def _read(self) -> None:
        self.was_read = self.backbone.read(self.words)

    def _fuse(self) -> None:
        seen, read = cast(Visual, self.seen), cast(Textual, self.was_read)
        if self.batch.pictures > 1:
            rows = torch.arange(len(self.batch.refs), device=self.device) // self.batch.pictures
            read = read.take(rows)
        self.features = self.backbone.fuse(seen, read)

    def _answer(self) -> Tensor:
        if isinstance(self.head, DualHead):
            encoder = cast(DualEncoder, self.backbone)
            seen, read = cast(Visual, self.seen), cast(Textual, self.was_read)
            return cast(Tensor, self.head(encoder.embed_images(seen), encoder.embed_texts(read)))
        return cast(Tensor, self.head(cast(Features, self.features)))


class Writing:
    """A model that writes: pictures and prompt go in together, and answers of up to 20 tokens come out."""

    def __init__(self, model: Generator, batch: Batch, decoded: Decoded, device: torch.device) -> None:
        self.model, self.batch, self.decoded, self.device = model, batch, decoded, device
        self.modules: Mapping[str, nn.Module] = {"model": cast(nn.Module, model)}
        self.prompts: Tensors = {}

    def stages(self) -> list[Stage]:
        """Decoding, preprocessing, and writing."""
        return [
            Stage("decode", lambda: self.decoded.decode(self.batch.refs)),
            Stage("preprocess", self._prepare),
            Stage("generate", lambda: self.model.generate(self.prompts, LONGEST)),
        ]

    def tokens(self) -> tuple[int, int] | None:
        """Nothing is said: pictures and text are one sequence."""
        return None

    def load(self) -> Loaded:
        """Decoded and prepared."""
        self.decoded.decode(self.batch.refs)
        return Loaded(self._made())

    def take(self, loaded: Loaded) -> list[Stage]:
        """Writing is left."""
        self.prompts = _on(self.device, loaded.images)
        return self.stages()[2:]

    def _prepare(self) -> None:
        self.prompts = _on(self.device, self._made())

    def _made(self) -> Tensors:
        each, refs = self.batch.pictures, self.batch.refs
        prompts = [
            Prompt(Query(tuple(refs[row * each : (row + 1) * each]), text)) for row, text in enumerate(self.batch.texts)
        ]
        return self.model.prepare_prompts(prompts)


def _on(device: torch.device, tensors: Tensors) -> Tensors:
    return {name: value.to(device) for name, value in tensors.items()}
