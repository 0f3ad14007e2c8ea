"""Transformers' dual encoders as backbones.

Shapes: N images, M texts, P pairs, E embedding width.
"""

from __future__ import annotations

import math
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Features, PretrainedWeights, Tensors, Textual, Visual
from vlbench.core.cards import ModelCard
from vlbench.data.resources import Resources
from vlbench.models.hf.folder import folder_of
from vlbench.models.hf.library import DualModel, Output
from vlbench.models.hf.pretrained import PretrainedFolder
from vlbench.models.hf.processor import PreparingModel
from vlbench.models.layers.attention import unpadded


class HFDual(PreparingModel):
    """A dual encoder with its own preprocessing; shapes are those of `core.backbone`, with R = T = 1 and D = 3 E.

    An image or a text becomes one token, its embedding of length 1, which is all that a gallery needs to keep.
    """

    def __init__(self, source: PretrainedFolder, longest: int, resources: Resources) -> None:
        super().__init__(source, longest, resources)
        self.network = source.make()
        # The SigLIP models have no projection, so E is their vision tower's width.
        config, projects = source.config, hasattr(source.config, "projection_dim")
        self.width = 3 * int(config.projection_dim if projects else config.vision_config.hidden_size)

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources) -> Self:
        """Build the one size of the card, untrained.

        Raises VlbenchError: no preprocessing in the folder, or one that does not load.
        """
        source = PretrainedFolder(folder_of(card), card.name, resources.loading)
        return cls(source, card.sizes[size].max_text, resources)

    def load_pretrained(self) -> PretrainedWeights:
        """Load the towers' weights; their temperature is the head."""
        self.network, loaded = self.source.load()
        self.check_images(self.see)
        return PretrainedWeights(loaded.report, {"log_scale": self._log_scale()})

    def _log_scale(self) -> Tensor:
        scale = getattr(self.network, "logit_scale", None)
        if isinstance(scale, Tensor):
            return scale.detach().reshape(())
        return -self.network.get_parameter("temperature").detach().reshape(()).log()  # ALIGN divides by it

    @property
    def _model(self) -> DualModel:
        return cast(DualModel, self.network)

    def adaptable(self) -> nn.Module:
        return self.network

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """The image embedding as one token [N, 1, E]; `slot` is unused."""
        output = self._model.get_image_features(**images)
        return Visual(*unpadded(_embeddings(output)))

    def read(self, texts: Tensors) -> Textual:
        """The text embedding as one token [M, 1, E]."""
        mask = None if self.text_preparer.pad == "max_length" else texts["mask"].long()
        output = self._model.get_text_features(input_ids=texts["ids"], attention_mask=mask)
        return Textual(*unpadded(_embeddings(output)))

    def embed_images(self, seen: Visual) -> Tensor:
        """The image embeddings [N, E], of length 1."""
        return seen.states[:, 0]

    def embed_texts(self, read: Textual) -> Tensor:
        """The text embeddings [M, E], of length 1."""
        return read.states[:, 0]

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """Both embeddings and their elementwise product concatenated [P, 3 E], each scaled to entries of about 1."""
        image, text = seen.states[:, 0], read.states[:, 0]
        scale = math.sqrt(image.shape[1])
        pooled = torch.cat([scale * image, scale * text, scale**2 * image * text], dim=-1)
        return Features(pooled, read.states, seen.states, read.mask, seen.mask)


def _embeddings(output: Tensor | Output) -> Tensor:
    """The result of `get_image_features` or `get_text_features` as tokens of length 1: [N, 1, E]."""
    pooled = output if isinstance(output, Tensor) else output.pooler_output
    return functional.normalize(pooled, dim=-1)[:, None]
