"""LXMERT's network, which CVLP's query network is too: two encoders, then layers that cross.

The module tree carries LXMERT's names (embeddings, encoder.visn_fc, encoder.layer, r_layers, x_layers,
pooler), so that official weights map onto it by renaming.

Shapes: N pictures, M texts, P pairs, R regions, F numbers per region, T text tokens, D width.
Source: Tan and Bansal 2019 (arXiv 1908.07490); Shi et al. 2020 (arXiv 2007.13135).
"""

from __future__ import annotations

from itertools import islice
from typing import Literal, cast

from pydantic import Field, model_validator
from torch import Tensor, nn

from vlbench.core.validate import Frozen
from vlbench.models.layers.attention import Attention, attention_mask
from vlbench.models.layers.blocks import EPSILON, EncoderLayer, FeedForwardBlock, SelfAttentionBlock
from vlbench.models.layers.config_checks import check_heads
from vlbench.models.layers.embeddings import TextEmbeddings
from vlbench.models.layers.initialize import initialize
from vlbench.models.layers.pooler import Pooler


class CrossModalConfig(Frozen):
    """The numbers of the architecture; vocab_size and region_dim come from the data's side.

    inner: width between the two products of a feed-forward. positions: the longest text. max_regions: of
    a picture with more, the first ones count. dropout, attention_dropout: probabilities. initial_std: of the
    weights before training. standardise: region features are brought to mean 0 and deviation 1, number by number,
    as measured on training images; the papers take their detector's features as they are. first_rows: whether the
    first row of the tables of words, positions and segments is trained by looking it up; `frozen` as in the official
    code (`padding_idx=0` on all three tables).
    """

    language_layers: int = Field(ge=1)
    region_layers: int = Field(ge=1)
    cross_layers: int = Field(ge=1)
    width: int = Field(ge=1)
    heads: int = Field(ge=1)
    inner: int = Field(ge=1)
    positions: int = Field(ge=2)
    max_regions: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    attention_dropout: float = Field(ge=0, lt=1)
    initial_std: float = Field(gt=0)
    standardise: bool
    vocab_size: int = Field(ge=1)
    region_dim: int = Field(ge=1)
    first_rows: Literal["frozen", "trained"] = "frozen"

    @model_validator(mode="after")
    def _heads_divide_width(self) -> CrossModalConfig:
        check_heads(self.width, self.heads)
        return self


class RegionEmbeddings(nn.Module):
    """dropout((LayerNorm(W_f f) + LayerNorm(W_b box)) / 2): what a region shows and where it is, averaged."""

    def __init__(self, config: CrossModalConfig) -> None:
        super().__init__()
        self.visn_fc = nn.Linear(config.region_dim, config.width)
        self.visn_layer_norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.box_fc = nn.Linear(4, config.width)
        self.box_layer_norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Features [N, R, F], boxes [N, R, 4] as shares of the picture's width and height -> [N, R, D]."""
        seen = self.visn_layer_norm(self.visn_fc(features))
        placed = self.box_layer_norm(self.box_fc(boxes))
        states: Tensor = self.dropout((seen + placed) / 2)
        return states


class TwoWayAttention(nn.Module):
    """Text looks at regions and regions at text, through the same weights, both from un-updated states."""

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


class CrossLayer(nn.Module):
    """Two-way attention, then self-attention and a feed-forward for each side on its own."""

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


class Encoder(nn.Module):
    """The layers: `layer` over text, `r_layers` over regions, `x_layers` over both."""

    def __init__(self, config: CrossModalConfig) -> None:
        super().__init__()
        sizes = (config.width, config.heads, config.inner, config.dropout, config.attention_dropout)
        self.visn_fc = RegionEmbeddings(config)
        self.layer = nn.ModuleList(EncoderLayer(*sizes) for _ in range(config.language_layers))
        self.r_layers = nn.ModuleList(EncoderLayer(*sizes) for _ in range(config.region_layers))
        self.x_layers = nn.ModuleList(CrossLayer(config) for _ in range(config.cross_layers))


class CrossModalNetwork(nn.Module):
    """The whole network. Row b of each result depends on row b of the input alone."""

    def __init__(self, config: CrossModalConfig) -> None:
        super().__init__()
        sizes = (config.vocab_size, config.positions, config.width)
        self.embeddings = TextEmbeddings(
            *sizes, config.dropout, frozen_row=0 if config.first_rows == "frozen" else None
        )
        self.encoder = Encoder(config)
        self.pooler = Pooler(config.width)
        initialize(self, config.initial_std)

    def see(self, features: Tensor, boxes: Tensor, mask: Tensor) -> Tensor:
        """Features [N, R, F], boxes [N, R, 4] in [0, 1], mask [N, R] -> states [N, R, D]."""
        states: Tensor = self.encoder.visn_fc(features, boxes)
        return _run(self.encoder.r_layers, states, mask)

    def read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids [M, T], mask [M, T] -> states [M, T, D]."""
        return _run(self.encoder.layer, self.embeddings(ids), mask)

    def fuse(
        self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Text [P, T, D], visual [P, R, D] and masks [P, T], [P, R] -> pooled [P, D] and both sides, updated."""
        text, visual = self._cross(len(self.encoder.x_layers), text, text_mask, visual, visual_mask)
        return self.pooler(text), text, visual

    def attend(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """Of the same inputs, how much [CLS] attends to each region in the last layer: [P, R]."""
        last = len(self.encoder.x_layers) - 1
        text, visual = self._cross(last, text, text_mask, visual, visual_mask)
        attention = cast(CrossLayer, self.encoder.x_layers[last]).visual_attention.attention
        return attention.weights(text[:, :1], visual, attention_mask(visual_mask))[:, 0]

    def _cross(
        self, layers: int, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both sides after so many of the cross layers."""
        text_keys, visual_keys = attention_mask(text_mask), attention_mask(visual_mask)
        for layer in islice(self.encoder.x_layers, layers):
            text, visual = layer(text, text_keys, visual, visual_keys)
        return text, visual


def _run(layers: nn.ModuleList, states: Tensor, mask: Tensor) -> Tensor:
    keys = attention_mask(mask)
    for layer in layers:
        states = layer(states, keys)
    return states
