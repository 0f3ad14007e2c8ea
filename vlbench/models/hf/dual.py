"""Two towers of transformers: pictures and texts embedded apart, and compared by a dot product.

Shapes: N pictures, M texts, P pairs, E embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Features, PretrainedWeights, Tensors, Textual, Visual
from vlbench.core.cards import ModelCard
from vlbench.core.examples import ImageRef
from vlbench.data.resources import Resources
from vlbench.models.hf.folder import check_processor, folder_of
from vlbench.models.hf.pretrained import Source
from vlbench.models.hf.processor import Eyes, Words, one_token, processing_of


class HFDual(nn.Module):
    """The towers with their own preprocessing; its shapes are those of `core.backbone`, with R = T = 1 and D = 3 E.

    What was seen or read is one token, the unit vector, which is all that a gallery needs to keep.
    """

    def __init__(self, source: Source, longest: int, resources: Resources) -> None:
        super().__init__()
        check_processor(source.folder, source.name, pictures=True)
        self.source = source
        self.words = Words(source, longest)
        self.eyes = Eyes(source)
        self.pictures = resources.images
        self.network = source.make()
        self.width = 3 * _embedding_width(source.config)

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources) -> Self:
        """Build the one size of the card, untrained.

        Raises:
            VlbenchError: no preprocessing in the folder, or one that does not load.
        """
        return cls(Source(folder_of(card), card.name, resources.loading), card.sizes[size].max_text, resources)

    def image_processing(self) -> dict[str, str]:
        """The image processor's class, and the library that it resizes with."""
        return processing_of(self.eyes.processor)

    def load_pretrained(self) -> PretrainedWeights:
        """Fill the towers with the weights that belong to them; the head they bring is their temperature.

        Raises:
            VlbenchError: exit 6, the weights do not fit.
        """
        self.network, loaded = self.source.load()
        self.eyes.check(self.see)
        return PretrainedWeights(loaded.report, {"log_scale": self._log_scale()})

    def _log_scale(self) -> Tensor:
        network = cast(Any, self.network)
        if hasattr(network, "logit_scale"):
            return cast(Tensor, network.logit_scale.detach().reshape(()))
        return -cast(Tensor, network.temperature.detach().reshape(())).log()  # ALIGN divides by it

    def adaptable(self) -> nn.Module:
        """Both towers."""
        return self.network

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        """What the model's image processor makes of N pictures.

        Raises:
            DataError: a picture cannot be read.
        """
        return self.eyes([self.pictures.open(ref) for ref in refs])

    def prepare_texts(self, texts: Sequence[str]) -> Tensors:
        """What its tokenizer makes of M texts: ids [M, T], mask [M, T]."""
        return self.words(texts)

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """The picture's unit vector as one token [N, 1, E]; `slot` does not count."""
        found = cast(Any, self.network).get_image_features(**images)
        return Visual(*one_token(functional.normalize(_pooled(found), dim=-1)))

    def read(self, texts: Tensors) -> Textual:
        """The text's unit vector as one token [M, 1, E]."""
        network = cast(Any, self.network)
        mask = None if self.words.pad == "max_length" else texts["mask"].long()
        found = network.get_text_features(input_ids=texts["ids"], attention_mask=mask)
        return Textual(*one_token(functional.normalize(_pooled(found), dim=-1)))

    def embed_images(self, seen: Visual) -> Tensor:
        """The pictures' unit vectors [N, E]."""
        return seen.states[:, 0]

    def embed_texts(self, read: Textual) -> Tensor:
        """The texts' unit vectors [M, E]."""
        return read.states[:, 0]

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """Both vectors and their product side by side [P, 3 E], each scaled to entries of about 1.

        The towers do not look at each other, so there is no more to it than that.
        """
        image, text = seen.states[:, 0], read.states[:, 0]
        scale = math.sqrt(image.shape[1])
        pooled = torch.cat([scale * image, scale * text, scale**2 * image * text], dim=-1)
        return Features(pooled, read.states, seen.states, read.mask, seen.mask)


def _pooled(found: Any) -> Tensor:
    """The embedding out of what `get_..._features` gives."""
    return cast(Tensor, found if isinstance(found, Tensor) else found.pooler_output)


def _embedding_width(config: Any) -> int:
    """E; the SigLIPs project pictures onto nothing, so it is their vision tower's."""
    return int(config.projection_dim if hasattr(config, "projection_dim") else config.vision_config.hidden_size)
