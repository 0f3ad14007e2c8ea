"""How each fusion model of transformers is questioned: what is done once per picture or text, what once per pair.

Each class wraps the library's model without its head. `see` takes what the model's image processor or the regions give,
and the slots; `read` ids and mask; `fuse` what both made. Where the library cannot go on from a text that was read,
`read` hands its ids on, as states [M, T].

Shapes: those of `core.backbone`; F region features.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Features, Tensors, Textual, Visual

SLOTS = 2
"""Pictures of an example that ViLT tells apart by their type."""


class Network(Protocol):
    """A fusion model of transformers; `model` is the library's."""

    model: nn.Module
    width: int

    def see(self, images: Tensors, slot: Tensor) -> Visual: ...

    def read(self, texts: Tensors) -> Textual: ...

    def fuse(self, seen: Visual, read: Textual) -> Features: ...


class Embedding(Protocol):
    """A fusion model that also embeds pictures and texts apart."""

    def embed_images(self, seen: Visual) -> Tensor: ...

    def embed_texts(self, read: Textual) -> Tensor: ...


class Wrapped(nn.Module):
    """The library's model, which embeds a text only where it meets the picture: what is read are the ids."""

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__()
        self.model, self.width = model, width

    def read(self, texts: Tensors) -> Textual:
        """The ids, as states [M, T]."""
        return Textual(texts["ids"], texts["mask"])


class Vilt(Wrapped):
    """Patches are embedded once; the transformer looks at text and patches together.

    The second picture has a type of its own, which begins as the first one's where the weights have none, as in the
    official code.
    """

    def __init__(self, model: nn.Module, config: Any) -> None:
        super().__init__(model, int(config.hidden_size))

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """The library draws the patches in random order; here they are put back in theirs: [N, 1 + R, D]."""
        embeddings = cast(Any, self.model).embeddings
        with torch.random.fork_rng(devices=[]):  # that order shall not move what training draws
            states, mask, (places, (_, columns)) = embeddings.visual_embed(
                images["pixel_values"], images["pixel_mask"], max_image_length=-1
            )
        order = (places[..., 0] * columns + places[..., 1]).masked_fill(~mask[:, 1:].bool(), places.numel())
        order = functional.pad(order.argsort(dim=1, stable=True) + 1, (1, 0))  # the class token stays first
        types = embeddings.token_type_embeddings.weight  # 0: text, 1 + slot: pictures
        # The model adds the first picture's type to all.
        other = types[(1 + slot).clamp(max=len(types) - 1)] - types[1]
        states = states.gather(1, order[..., None].expand_as(states)) + other[:, None]
        return Visual(states, mask.gather(1, order).bool())

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """One transformer over both."""
        found = self.model(
            input_ids=read.states,
            attention_mask=read.mask.long(),
            image_embeds=seen.states,
            pixel_mask=seen.mask.long(),
        )
        length = read.states.shape[1]
        states = found.last_hidden_state
        return Features(found.pooler_output, states[:, :length], states[:, length:], read.mask, seen.mask)


class Lxmert(Wrapped):
    """Regions and their boxes, carried side by side [N, R, F + 4]; the library encodes and crosses in one pass."""

    def __init__(self, model: nn.Module, config: Any) -> None:
        super().__init__(model, int(config.hidden_size))

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """`slot` does not count: the head keeps the pictures apart."""
        return Visual(torch.cat([images["features"], images["boxes"]], dim=-1), images["mask"])

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """Language, region and cross layers, and the pooler."""
        found = self.model(
            input_ids=read.states,
            attention_mask=read.mask.float(),
            visual_feats=seen.states[..., :-4],
            visual_pos=seen.states[..., -4:],
            visual_attention_mask=seen.mask.float(),
        )
        return Features(found.pooled_output, found.language_output, found.vision_output, read.mask, seen.mask)


class VisualBert(Wrapped):
    """Regions without boxes behind the text, in one transformer."""

    def __init__(self, model: nn.Module, config: Any) -> None:
        super().__init__(model, int(config.hidden_size))

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """`slot` does not count."""
        return Visual(images["features"], images["mask"])

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """One transformer over both."""
        found = self.model(
            input_ids=read.states,
            attention_mask=read.mask.long(),
            visual_embeds=seen.states,
            visual_attention_mask=seen.mask.long(),
            visual_token_type_ids=torch.ones_like(seen.mask, dtype=torch.int64),
        )
        length = read.states.shape[1]
        states = found.last_hidden_state
        return Features(found.pooler_output, states[:, :length], states[:, length:], read.mask, seen.mask)


class Flava(Wrapped):
    """Both towers run once; only the multimodal encoder looks at pairs: a class token, patches, then words."""

    def __init__(self, model: nn.Module, config: Any) -> None:
        super().__init__(model, int(config.multimodal_config.hidden_size))

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """The image tower's last layer without its norm, projected, as the library does."""
        model = cast(Any, self.model)
        found = model.image_model(pixel_values=images["pixel_values"], output_hidden_states=True)
        return _whole(model.image_to_mm_projection(found.hidden_states[-1]))

    def read(self, texts: Tensors) -> Textual:
        """The text tower's, likewise."""
        model = cast(Any, self.model)
        found = model.text_model(input_ids=texts["ids"], attention_mask=texts["mask"].long(), output_hidden_states=True)
        return Textual(model.text_to_mm_projection(found.hidden_states[-1]), texts["mask"])

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """The multimodal encoder and its pooler, which looks at the class token."""
        mask = functional.pad(torch.cat([seen.mask, read.mask], dim=1).long(), (1, 0), value=1)
        found = cast(Any, self.model).multimodal_model(
            torch.cat([seen.states, read.states], dim=1), attention_mask=mask
        )
        states, first = found.last_hidden_state[:, 1:], seen.states.shape[1]
        return Features(found.pooler_output, states[:, first:], states[:, :first], read.mask, seen.mask)


class BridgeTower(Wrapped):
    """Patches are embedded once; towers and bridges are crossed layer by layer, which the library does in one pass."""

    def __init__(self, model: nn.Module, config: Any) -> None:
        super().__init__(model, 2 * int(config.hidden_size))  # both poolers, side by side

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """The vision tower's embeddings [N, R, D]; `slot` does not count."""
        visual = cast(Any, self.model).vision_model.visual
        return _whole(visual.forward_pre(images["pixel_values"]).permute(1, 0, 2))

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """Both towers, the bridges and the cross layers."""
        found = self.model(
            input_ids=read.states, attention_mask=read.mask.long(), image_embeds=seen.states, pixel_values=None
        )
        return Features(found.pooler_output, found.text_features, found.image_features, read.mask, seen.mask)


class Blip(Wrapped):
    """The vision tower runs once; the text encoder looks across at it in every layer. Both also embed apart."""

    def __init__(self, model: nn.Module, config: Any) -> None:
        super().__init__(model, int(config.text_config.hidden_size))

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """The vision tower; `slot` does not count."""
        found = cast(Any, self.model).vision_model(pixel_values=images["pixel_values"])
        return _whole(found.last_hidden_state)

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """The text encoder with cross-attention; its first token is what the matching head looks at."""
        found = cast(Any, self.model).text_encoder(
            input_ids=read.states,
            attention_mask=read.mask.long(),
            encoder_hidden_states=seen.states,
            encoder_attention_mask=seen.mask.long(),
        )
        states = found.last_hidden_state
        return Features(states[:, 0], states, seen.states, read.mask, seen.mask)

    def embed_images(self, seen: Visual) -> Tensor:
        """The class token, projected, as long as 1: [N, E]."""
        return functional.normalize(cast(Any, self.model).vision_proj(seen.states[:, 0]), dim=-1)

    def embed_texts(self, read: Textual) -> Tensor:
        """The text encoder without a picture, its first token projected, as long as 1: [M, E]."""
        model = cast(Any, self.model)
        found = model.text_encoder(input_ids=read.states, attention_mask=read.mask.long())
        return functional.normalize(model.text_proj(found.last_hidden_state[:, 0]), dim=-1)


def _whole(states: Tensor) -> Visual:
    """States [N, R, D] of pictures brought to one size: no token is padding."""
    return Visual(states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device))
