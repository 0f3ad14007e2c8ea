"""Transformers' models that look at a picture and a text together, as backbones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from vlbench.core.backbone import Features, PretrainedWeights, Tensors, Textual, Visual
from vlbench.core.cards import ModelCard
from vlbench.core.examples import ImageRef
from vlbench.data.resources import Resources
from vlbench.models.hf import networks
from vlbench.models.hf.folder import check_processor, folder_of
from vlbench.models.hf.networks import SLOTS, Embedding, Network
from vlbench.models.hf.pretrained import Source
from vlbench.models.hf.processor import Eyes, Words, processing_of
from vlbench.models.hf.regions import RegionEyes

_NETWORKS: Mapping[str, Callable[[nn.Module, Any], Network]] = {
    "Vilt": networks.Vilt,
    "Lxmert": networks.Lxmert,
    "VisualBert": networks.VisualBert,
    "Flava": networks.Flava,
    "BridgeTower": networks.BridgeTower,
    "Blip": networks.Blip,
}


class HFFusion(nn.Module):
    """A network with its own preprocessing; its shapes are those of `core.backbone`."""

    def __init__(self, source: Source, longest: int, resources: Resources) -> None:
        super().__init__()
        looks_at_regions = source.family.visual == "regions"
        check_processor(source.folder, source.name, pictures=not looks_at_regions)
        self.source = source
        self.words = Words(source, longest)
        self.eyes: Eyes | RegionEyes = RegionEyes(resources, source) if looks_at_regions else Eyes(source)
        self.pictures = resources.images
        self.network = self._questioned(source.make())
        self.width = self._network.width

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources) -> Self:
        """Build the one size of the card, untrained.

        Raises:
            VlbenchError: no preprocessing in the folder, or one that does not load; regions that do not fit.
        """
        build = HFEmbedding if card.embeds else HFFusion
        return cast(
            Self, build(Source(folder_of(card), card.name, resources.loading), card.sizes[size].max_text, resources)
        )

    @property
    def _network(self) -> Network:
        return cast(Network, self.network)

    def image_processing(self) -> dict[str, str]:
        """The image processor's class, and the library that it resizes with; nothing where regions are looked at."""
        return processing_of(self.eyes.processor) if isinstance(self.eyes, Eyes) else {}

    def load_pretrained(self) -> PretrainedWeights:
        """Fill the network with the weights that belong to it, and hand out the head that was trained with it.

        Raises:
            VlbenchError: exit 6, the weights do not fit.
        """
        model, loaded = self.source.load()
        self.network = self._questioned(model)
        if isinstance(self.eyes, Eyes):
            self.eyes.check(self.see)
        return loaded

    def _questioned(self, model: nn.Module) -> nn.Module:
        _tell_slots_apart(model)
        return cast(nn.Module, _NETWORKS[self.source.family.network](model, self.source.config))

    def adaptable(self) -> nn.Module:
        """The network, as the library made it."""
        return self._network.model

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        """What the model's image processor makes of N pictures, or their regions.

        Raises:
            DataError: a picture cannot be read, or has no regions.
        """
        if isinstance(self.eyes, RegionEyes):
            return self.eyes(refs)
        return self.eyes([self.pictures.open(ref) for ref in refs])

    def prepare_texts(self, texts: Sequence[str]) -> Tensors:
        """What its tokenizer makes of M texts: ids [M, T], mask [M, T]."""
        return self.words(texts)

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """What can be done once per picture."""
        return self._network.see(images, slot)

    def read(self, texts: Tensors) -> Textual:
        """What can be done once per text."""
        return self._network.read(texts)

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """The rest, pair by pair."""
        return self._network.fuse(seen, read)


class HFEmbedding(HFFusion):
    """One that also embeds pictures and texts apart, so that a ranking can begin with a shortlist."""

    def embed_images(self, seen: Visual) -> Tensor:
        """What was seen -> vectors of length 1, [N, E]."""
        return cast(Embedding, self.network).embed_images(seen)

    def embed_texts(self, read: Textual) -> Tensor:
        """What was read -> vectors of length 1, [M, E]."""
        return cast(Embedding, self.network).embed_texts(read)


def _tell_slots_apart(model: nn.Module) -> None:
    """Grow ViLT's table of types to one per picture of an example; a new one begins as the first picture's."""
    embeddings = getattr(model, "embeddings", None)
    types = getattr(embeddings, "token_type_embeddings", None)
    if type(model).__name__ != "ViltModel" or embeddings is None or types is None:
        return
    rows = types.weight.data
    grown = torch.cat([rows, rows[1:2].expand(max(1 + SLOTS - len(rows), 0), -1)])
    embeddings.token_type_embeddings = nn.Embedding(len(grown), grown.shape[1], _weight=grown)
