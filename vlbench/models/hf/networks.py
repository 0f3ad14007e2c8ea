"""How to call each fusion model of transformers: what is computed once per image or text, and what once per pair.

Each class wraps the library's model without its head. `see` takes the output of the image processor or the regions, and
the slots; `read` takes ids and mask; `fuse` takes the results of both. If the library cannot continue from an encoded
text, `read` passes the ids on, as states [M, T].

Shapes: those of `core.backbone`; F region features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Features, Tensors, Textual, Visual
from vlbench.models.hf.library import Config, Output
from vlbench.models.layers.attention import unpadded

SLOTS = 2
"""The images of an example that ViLT distinguishes by their type."""


class Network(nn.Module, ABC):
    """A fusion model of transformers. model: the library's. width: D of the pooled states."""

    def __init__(self, model: nn.Module, config: Config) -> None:
        super().__init__()
        self.model, self.width = model, int(self.width_in(config))

    @staticmethod
    def width_in(config: Config) -> int:
        return config.hidden_size

    @abstractmethod
    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """Encode N images as far as that is independent of the text."""

    def read(self, texts: Tensors) -> Textual:
        """The ids of M texts, as states [M, T]: the library embeds a text together with its image."""
        return Textual(texts["ids"], texts["mask"])

    @abstractmethod
    def fuse(self, seen: Visual, read: Textual) -> Features:
        """Encode P pairs."""


@runtime_checkable
class ViltEmbeddings(Protocol):
    """ViLT's embeddings in transformers."""

    token_type_embeddings: nn.Embedding

    def visual_embed(
        self, pixel_values: Tensor, pixel_mask: Tensor, max_image_length: int
    ) -> tuple[Tensor, Tensor, tuple[Tensor, tuple[int, int]]]: ...


@runtime_checkable
class PatchEmbedding(Protocol):
    """The patch embedding of BridgeTower's vision tower in transformers."""

    def forward_pre(self, pixel_values: Tensor) -> Tensor: ...


class Vilt(Network):
    """ViLT: patches are embedded once per image; the transformer runs over text and patches together.

    The second image has a separate type, which starts as a copy of the first one's if the weights have none, as in the
    official code.
    """

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """Patch embeddings [N, 1 + R, D]; the library shuffles the patches, and here they are put back in order."""
        embeddings = self.model.get_submodule("embeddings")
        assert isinstance(embeddings, ViltEmbeddings)
        with torch.random.fork_rng(devices=[]):  # shuffling must not change the random state of training
            states, mask, (places, (_, columns)) = embeddings.visual_embed(
                images["pixel_values"], images["pixel_mask"], max_image_length=-1
            )
        order = (places[..., 0] * columns + places[..., 1]).masked_fill(~mask[:, 1:].bool(), places.numel())
        order = functional.pad(order.argsort(dim=1, stable=True) + 1, (1, 0))  # the class token stays first
        types = embeddings.token_type_embeddings.weight  # 0: text, 1 + slot: images
        # The model adds the first image's type to all.
        other = types[(1 + slot).clamp(max=len(types) - 1)] - types[1]
        states = states.gather(1, order[..., None].expand_as(states)) + other[:, None]
        return Visual(states, mask.gather(1, order).bool())

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """One transformer over text and image."""
        output: Output = self.model(
            input_ids=read.states,
            attention_mask=read.mask.long(),
            image_embeds=seen.states,
            pixel_mask=seen.mask.long(),
        )
        text, visual = output.last_hidden_state.tensor_split([read.states.shape[1]], dim=1)
        return Features(output.pooler_output, text, visual, read.mask, seen.mask)


class Lxmert(Network):
    """LXMERT: regions and boxes are passed on together [N, R, F + 4]; the library runs all its encoders in one pass."""

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """Features and boxes [N, R, F + 4]. `slot` is unused: the head distinguishes the images."""
        return Visual(torch.cat([images["features"], images["boxes"]], dim=-1), images["mask"])

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """Language, region and cross layers, and the pooler."""
        output: Output = self.model(
            input_ids=read.states,
            attention_mask=read.mask.float(),
            visual_feats=seen.states[..., :-4],
            visual_pos=seen.states[..., -4:],
            visual_attention_mask=seen.mask.float(),
        )
        return Features(output.pooled_output, output.language_output, output.vision_output, read.mask, seen.mask)


class VisualBert(Network):
    """VisualBERT: text and regions, without boxes, in one transformer."""

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """Features [N, R, F]. `slot` is unused."""
        return Visual(images["features"], images["mask"])

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """One transformer over text and image."""
        output: Output = self.model(
            input_ids=read.states,
            attention_mask=read.mask.long(),
            visual_embeds=seen.states,
            visual_attention_mask=seen.mask.long(),
            visual_token_type_ids=torch.ones_like(seen.mask, dtype=torch.int64),
        )
        text, visual = output.last_hidden_state.tensor_split([read.states.shape[1]], dim=1)
        return Features(output.pooler_output, text, visual, read.mask, seen.mask)


class Flava(Network):
    """FLAVA: both towers run once; the multimodal encoder runs over a class token, the patches and the text."""

    @staticmethod
    def width_in(config: Config) -> int:
        return config.multimodal_config.hidden_size

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """The image tower's last layer without its norm, projected as in the library: [N, R, D]."""
        tower, projection = self.model.get_submodule("image_model"), self.model.get_submodule("image_to_mm_projection")
        output: Output = tower(pixel_values=images["pixel_values"], output_hidden_states=True)
        return Visual(*unpadded(projection(output.hidden_states[-1])))

    def read(self, texts: Tensors) -> Textual:
        """The text tower's last layer, likewise: [M, T, D]."""
        tower, projection = self.model.get_submodule("text_model"), self.model.get_submodule("text_to_mm_projection")
        mask = texts["mask"].long()
        output: Output = tower(input_ids=texts["ids"], attention_mask=mask, output_hidden_states=True)
        return Textual(projection(output.hidden_states[-1]), texts["mask"])

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """The multimodal encoder, and its pooler over the class token."""
        mask = functional.pad(torch.cat([seen.mask, read.mask], dim=1).long(), (1, 0), value=1)
        states = torch.cat([seen.states, read.states], dim=1)
        output: Output = self.model.get_submodule("multimodal_model")(states, attention_mask=mask)
        states, first = output.last_hidden_state[:, 1:], seen.states.shape[1]
        return Features(output.pooler_output, states[:, first:], states[:, :first], read.mask, seen.mask)


class BridgeTower(Network):
    """BridgeTower: patches are embedded once; the library runs towers, bridges and cross layers in one pass."""

    @staticmethod
    def width_in(config: Config) -> int:
        return 2 * config.hidden_size  # both poolers, side by side

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """The vision tower's embeddings [N, R, D]. `slot` is unused."""
        visual = self.model.get_submodule("vision_model.visual")
        assert isinstance(visual, PatchEmbedding)
        return Visual(*unpadded(visual.forward_pre(images["pixel_values"]).permute(1, 0, 2)))

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """Both towers, the bridges and the cross layers."""
        output: Output = self.model(
            input_ids=read.states, attention_mask=read.mask.long(), image_embeds=seen.states, pixel_values=None
        )
        return Features(output.pooler_output, output.text_features, output.image_features, read.mask, seen.mask)


class Blip(Network):
    """BLIP: the vision tower runs once; each layer of the text encoder attends to it. It is a dual encoder too."""

    @staticmethod
    def width_in(config: Config) -> int:
        return config.text_config.hidden_size

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """The vision tower's states [N, R, D]. `slot` is unused."""
        output: Output = self.model.get_submodule("vision_model")(pixel_values=images["pixel_values"])
        return Visual(*unpadded(output.last_hidden_state))

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """The text encoder with cross-attention; the matching head uses its first token."""
        output: Output = self.model.get_submodule("text_encoder")(
            input_ids=read.states,
            attention_mask=read.mask.long(),
            encoder_hidden_states=seen.states,
            encoder_attention_mask=seen.mask.long(),
        )
        states = output.last_hidden_state
        return Features(states[:, 0], states, seen.states, read.mask, seen.mask)

    def embed_images(self, seen: Visual) -> Tensor:
        """The projected class token, normalized to length 1: [N, E]."""
        return functional.normalize(self.model.get_submodule("vision_proj")(seen.states[:, 0]), dim=-1)

    def embed_texts(self, read: Textual) -> Tensor:
        """The projected first token of the text encoder without an image, normalized to length 1: [M, E]."""
        encoder, projection = self.model.get_submodule("text_encoder"), self.model.get_submodule("text_proj")
        output: Output = encoder(input_ids=read.states, attention_mask=read.mask.long())
        return functional.normalize(projection(output.last_hidden_state[:, 0]), dim=-1)
