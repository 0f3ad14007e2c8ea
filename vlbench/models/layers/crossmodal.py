"""LXMERT's network, which is also CVLP's query network: two encoders, then cross-attention layers.

The modules have LXMERT's names (embeddings, encoder.visn_fc, encoder.layer, r_layers, x_layers, pooler), so that
official weights load after renaming.

Shapes: N images, M texts, P pairs, R regions, F numbers per region, T text tokens, D width.
Source: Tan and Bansal 2019 (arXiv 1908.07490); Shi et al. 2020 (arXiv 2007.13135).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vlbench.models.layers.attention import Attention, attention_mask, run_layers
from vlbench.models.layers.bert import (
    EPSILON,
    BertConfig,
    FeedForwardBlock,
    Pooler,
    SelfAttentionBlock,
    TextEmbeddings,
    initialize,
)


class CrossModalConfig(BertConfig):
    """The sizes of the architecture; vocab_size and region_dim come from the data.

    max_regions: the first ones are used of an image with more. standardise: scale each region feature to mean 0 and
    standard deviation 1, measured on training images; the papers use their detector's features unchanged. first_rows:
    `frozen` gives the first row of the tables of words, positions and segments no gradient, as in the official code
    (`padding_idx=0` on all three tables).
    """

    language_layers: int = Field(ge=1)
    region_layers: int = Field(ge=1)
    cross_layers: int = Field(ge=1)
    max_regions: int = Field(ge=1)
    standardise: bool
    region_dim: int = Field(ge=1)
    first_rows: Literal["frozen", "trained"] = "frozen"


class FeatureNorm(nn.Module):
    """(x - mean) / deviation for each feature; the identity until `fit`. Both are buffers, not parameters."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def fit(self, values: Tensor, floor: float = 0.02) -> None:
        """Measure both on values [N, F]. `floor` is added to the deviation, so that a constant feature stays finite."""
        self.mean.copy_(values.mean(dim=0))
        self.deviation.copy_(values.std(dim=0, correction=0) + floor)

    def forward(self, values: Tensor) -> Tensor:
        """Values [..., F] -> the same shape."""
        return (values - self.mean) / self.deviation


class RegionEmbeddings(nn.Module):
    """dropout((LayerNorm(W_f f) + LayerNorm(W_b box)) / 2), the mean of a region's feature and box embeddings."""

    def __init__(self, config: CrossModalConfig) -> None:
        super().__init__()
        self.visn_fc = nn.Linear(config.region_dim, config.width)
        self.visn_layer_norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.box_fc = nn.Linear(4, config.width)
        self.box_layer_norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Features [N, R, F], boxes [N, R, 4] in [0, 1], relative to the image's width and height -> [N, R, D]."""
        feature_states = self.visn_layer_norm(self.visn_fc(features))
        box_states = self.box_layer_norm(self.box_fc(boxes))
        states: Tensor = self.dropout((feature_states + box_states) / 2)
        return states


class TwoWayAttention(nn.Module):
    """Text attends to regions and regions attend to text, with the same weights and from the same states."""

    def __init__(self, config: CrossModalConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, config.attention_dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.width, eps=EPSILON)

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Text [P, T, D], visual [P, R, D] and masks [P, 1, 1, T], [P, 1, 1, R] -> both, updated."""
        text_query, text_key, text_value = self.attention.project(text)
        visual_query, visual_key, visual_value = self.attention.project(visual)
        to_text = self.attention.attend(text_query, visual_key, visual_value, visual_mask)
        to_visual = self.attention.attend(visual_query, text_key, text_value, text_mask)
        return self.norm(text + self.dropout(to_text)), self.norm(visual + self.dropout(to_visual))

    def update_text(self, text: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """The text [P, T, D] of `forward` alone."""
        updated: Tensor = self.norm(text + self.dropout(self.attention(visual, visual_mask, text)))
        return updated


class CrossLayer(nn.Module):
    """Two-way attention, then self-attention and a feed-forward network for each modality on its own."""

    def __init__(self, config: CrossModalConfig) -> None:
        super().__init__()
        attention = (config.width, config.heads, config.dropout, config.attention_dropout)
        self.visual_attention = TwoWayAttention(config)
        self.lang_self_att = SelfAttentionBlock(*attention)
        self.visn_self_att = SelfAttentionBlock(*attention)
        self.lang_feed_forward = FeedForwardBlock(config.width, config.inner, config.dropout)
        self.visn_feed_forward = FeedForwardBlock(config.width, config.inner, config.dropout)

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Text [P, T, D], visual [P, R, D] and masks [P, 1, 1, T], [P, 1, 1, R] -> both, updated."""
        text, visual = self.visual_attention(text, text_mask, visual, visual_mask)
        text = self.lang_feed_forward(self.lang_self_att(text, text_mask))
        visual = self.visn_feed_forward(self.visn_self_att(visual, visual_mask))
        return text, visual

    def update_first(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """The first token [P, 1, D] of the text of `forward` alone."""
        text = self.visual_attention.update_text(text, visual, visual_mask)
        first: Tensor = self.lang_feed_forward(self.lang_self_att(text, text_mask, count=1))
        return first


class Encoder(nn.Module):
    """The encoder: `layer` over text, `r_layers` over regions, `x_layers` over both."""

    def __init__(self, config: CrossModalConfig) -> None:
        super().__init__()
        self.visn_fc = RegionEmbeddings(config)
        self.layer = config.encoder_layers(config.language_layers)
        self.r_layers = config.encoder_layers(config.region_layers)
        self.x_layers = nn.ModuleList(CrossLayer(config) for _ in range(config.cross_layers))


class CrossModalNetwork(nn.Module):
    """The whole network. Row b of each result depends on row b of the input only."""

    def __init__(self, config: CrossModalConfig) -> None:
        super().__init__()
        frozen_row = 0 if config.first_rows == "frozen" else None
        sizes = (config.vocab_size, config.positions, config.width, config.dropout)
        self.embeddings = TextEmbeddings(*sizes, frozen_row=frozen_row)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config.width)
        initialize(self, config.initial_std)

    def see(self, features: Tensor, boxes: Tensor, mask: Tensor) -> Tensor:
        """Features [N, R, F], boxes [N, R, 4] in [0, 1], mask [N, R] bool -> states [N, R, D]."""
        return run_layers(self.encoder.r_layers, self.encoder.visn_fc(features, boxes), attention_mask(mask))

    def read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids [M, T] int64, mask [M, T] bool -> states [M, T, D]."""
        return run_layers(self.encoder.layer, self.embeddings(ids), attention_mask(mask))

    def fuse(
        self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Text [P, T, D], visual [P, R, D] and masks [P, T], [P, R] bool -> pooled [P, D], text and visual, updated."""
        text, visual = self._cross(self.encoder.x_layers, text, text_mask, visual, visual_mask)
        return self.pooler(text), text, visual

    def pool(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """The pooled [P, D] of `fuse` alone: the last layer computes only [CLS]."""
        last, text, visual = self._before_last(text, text_mask, visual, visual_mask)
        first = last.update_first(text, attention_mask(text_mask), visual, attention_mask(visual_mask))
        pooled: Tensor = self.pooler(first)
        return pooled

    def attend(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """The attention of [CLS] to each region in the last cross layer, for the inputs of `fuse`: [P, R], sum 1."""
        last, text, visual = self._before_last(text, text_mask, visual, visual_mask)
        return last.visual_attention.attention.weights(text[:, :1], visual, attention_mask(visual_mask))[:, 0]

    def _before_last(
        self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor
    ) -> tuple[CrossLayer, Tensor, Tensor]:
        """The last cross layer, and the text and visual states that it gets."""
        *layers, last = self.encoder.x_layers
        assert isinstance(last, CrossLayer)
        return last, *self._cross(layers, text, text_mask, visual, visual_mask)

    def _cross(
        self, layers: Iterable[nn.Module], text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        text_keys, visual_keys = attention_mask(text_mask), attention_mask(visual_mask)
        for layer in layers:
            text, visual = layer(text, text_keys, visual, visual_keys)
        return text, visual
