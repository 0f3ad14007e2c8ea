"""Transformers' fusion models, which encode an image and a text together, as backbones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vlbench.core.backbone import Features, PretrainedWeights, Tensors, Textual, Visual
from vlbench.core.cards import ModelCard
from vlbench.data.resources import Resources
from vlbench.models.hf import networks
from vlbench.models.hf.folder import folder_of
from vlbench.models.hf.networks import SLOTS, Network
from vlbench.models.hf.pretrained import PretrainedFolder
from vlbench.models.hf.processor import PreparingModel

_CLASSES = (networks.Vilt, networks.Lxmert, networks.VisualBert, networks.Flava, networks.BridgeTower, networks.Blip)
_NETWORKS: Mapping[str, type[Network]] = {kind.__name__: kind for kind in _CLASSES}


class HFFusion(PreparingModel):
    """A fusion network with its own preprocessing; shapes are those of `core.backbone`."""

    network: Network

    def __init__(self, source: PretrainedFolder, longest: int, resources: Resources) -> None:
        super().__init__(source, longest, resources)
        self.network = self._wrap(source.make())
        self.width = self.network.width

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources) -> HFFusion:
        """Build the one size of the card, untrained.

        Raises VlbenchError: no preprocessing in the folder, or one that does not load; regions that do not fit.
        """
        build = HFEmbedding if card.embeds else HFFusion
        source = PretrainedFolder(folder_of(card), card.name, resources.loading)
        return build(source, card.sizes[size].max_text, resources)

    def load_pretrained(self) -> PretrainedWeights:
        """Load the network's weights, and return the head that was trained with it."""
        model, loaded = self.source.load()
        self.network = self._wrap(model)
        self.check_images(self.see)
        return loaded

    def _wrap(self, model: nn.Module) -> Network:
        _add_slot_types(model)
        return _NETWORKS[self.source.family.network](model, self.source.config)

    def adaptable(self) -> nn.Module:
        return self.network.model

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """Compute what is needed once per image: states [N, R, D], or the features of regions."""
        return self.network.see(images, slot)

    def read(self, texts: Tensors) -> Textual:
        """Compute what is needed once per text: states [M, T, D], or the ids [M, T]."""
        return self.network.read(texts)

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """Compute the rest, for each pair: pooled [P, D]."""
        return self.network.fuse(seen, read)


class HFEmbedding(HFFusion):
    """A fusion network that is a dual encoder too, so that retrieval can start from a shortlist."""

    network: networks.Blip

    def embed_images(self, seen: Visual) -> Tensor:
        """The image embeddings [N, E], of length 1."""
        return self.network.embed_images(seen)

    def embed_texts(self, read: Textual) -> Tensor:
        """The text embeddings [M, E], of length 1."""
        return self.network.embed_texts(read)


def _add_slot_types(model: nn.Module) -> None:
    """Grow ViLT's table of types to one row per image of an example; new rows are copies of the first image's."""
    embeddings = getattr(model, "embeddings", None)
    types = getattr(embeddings, "token_type_embeddings", None)
    if type(model).__name__ != "ViltModel" or embeddings is None or types is None:
        return
    rows = types.weight.data
    grown = torch.cat([rows, rows[1:2].expand(max(1 + SLOTS - len(rows), 0), -1)])
    embeddings.token_type_embeddings = nn.Embedding(len(grown), grown.shape[1], _weight=grown)
