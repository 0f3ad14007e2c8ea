"""A model with its inputs, cut into the stages that are measured: those of a run's own forward pass.

Shapes: B examples, I images of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import torch
from PIL.Image import Image
from torch import nn

from vlbench.core.backbone import Model
from vlbench.core.batch import Batch
from vlbench.core.examples import Example, ImageRef, Query
from vlbench.heads.base import Head
from vlbench.heads.forward import Forward
from vlbench.profiling.detection import DetectorStages
from vlbench.profiling.inputs import DecodedImages
from vlbench.profiling.timing import Stage


@dataclass(frozen=True)
class LoadedInputs:
    """The inputs of a batch as a data loader returns them, on the CPU.

    batch: prepared. decoded: decoded images by key instead, where a detector comes first.
    """

    batch: Batch | None = None
    decoded: Mapping[str, Image] = field(default_factory=dict)


class ModelInputs:
    """Images and texts of B examples: refs [B * I], texts [B]."""

    def __init__(self, refs: Sequence[ImageRef], texts: Sequence[str]) -> None:
        self.refs, self.texts = list(refs), list(texts)
        count = len(refs) // len(texts)
        self.examples = [
            Example(str(row), Query(tuple(refs[row * count : (row + 1) * count]), text), None, str(row))
            for row, text in enumerate(texts)
        ]


class StagedModel:
    """A model under a head, over one batch of inputs.

    modules: all modules that the stages run, by name. detector: the stages that compute regions; None without one.
    forward: the forward pass over the inputs; None before they are prepared.
    """

    def __init__(
        self,
        model: Model,
        head: Head,
        inputs: ModelInputs,
        decoded: DecodedImages,
        detector: DetectorStages | None,
        device: torch.device,
    ) -> None:
        self.model, self.head, self.inputs = model, head, inputs
        self.decoded, self.detector, self.device = decoded, detector, device
        self.modules: Mapping[str, nn.Module] = {"backbone": cast(nn.Module, model), "head": head}
        if not any(True for _ in head.parameters()):
            self.modules = {"model": cast(nn.Module, model)}
        if detector is not None:
            self.modules = {**self.modules, "detector": detector.network}
        self.forward: Forward | None = None

    def stages(self) -> list[Stage]:
        """The stages in order, all over the same batch: decoding, the detector's, preprocessing, the forward pass."""
        stages = [Stage("decode", lambda: self.decoded.decode(self.inputs.refs))]
        if self.detector is not None:
            stages += self.detector.stages(self.inputs.refs)
        return [*stages, Stage("preprocess", lambda: self._use(self._prepare())), *self.forward_stages()]

    def forward_stages(self) -> list[Stage]:
        """The stages of the forward pass, over the inputs that were prepared last."""
        return [Stage(stage.name, partial(self._run, stage.run)) for stage in self.head.stages()]

    def count_tokens(self) -> tuple[int, int] | None:
        """Tokens of the image and of the text, as they enter the fusion; None where nothing is encoded separately."""
        if not hasattr(self.forward, "visual") or not hasattr(self.forward, "textual") or self.forward is None:
            return None
        return int(self.forward.visual.mask[0].sum()), int(self.forward.textual.mask[0].sum())

    def load_inputs(self) -> LoadedInputs:
        """Decode and, without a detector, prepare the inputs; may run in another process."""
        self.decoded.decode(self.inputs.refs)
        if self.detector is not None:
            return LoadedInputs(decoded=self.decoded.images)
        return LoadedInputs(self._prepare())

    def use_inputs(self, loaded: LoadedInputs) -> list[Stage]:
        """Take over what `load_inputs` returned; returns the stages that are left to run."""
        if loaded.batch is None:
            self.decoded.images = dict(loaded.decoded)
            return self.stages()[1:]
        self._use(loaded.batch)
        return self.forward_stages()

    def _prepare(self) -> Batch:
        examples = self.inputs.examples
        return self.head.collate(examples, range(len(examples)), self.model)

    def _use(self, batch: Batch) -> None:
        self.forward = Forward(self.model, batch.to(self.device))

    def _run(self, stage: Callable[[Forward], object]) -> object:
        if self.forward is None:
            raise RuntimeError("the stage preprocess has not run")
        return stage(self.forward)
