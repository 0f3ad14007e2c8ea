"""Protocols for the parts of transformers' objects that this package uses: the library leaves most of them untyped.

Shapes: B rows, T tokens, D width, E embedding width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypedDict

import torch
from torch import Tensor, nn


class Config(Protocol):
    """The values of a config.json; each architecture has some of them."""

    model_type: str
    architectures: Sequence[str] | None
    hidden_size: int
    projection_dim: int
    text_config: Config
    vision_config: Config
    multimodal_config: Config

    def get_text_config(self) -> Config: ...


class Output(Protocol):
    """The output of a model; each architecture has some of these tensors."""

    logits: Tensor
    last_hidden_state: Tensor
    hidden_states: Sequence[Tensor]
    pooler_output: Tensor
    pooled_output: Tensor
    language_output: Tensor
    vision_output: Tensor
    text_features: Tensor
    image_features: Tensor


class DualModel(Protocol):
    """A dual encoder."""

    def get_image_features(self, **images: Tensor) -> Tensor | Output: ...

    def get_text_features(self, *, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor | Output: ...


class GenerativeModel(Protocol):
    """A generative model. base_model: the model without its output layer, or the whole if it has no such part."""

    generation_config: object
    dtype: torch.dtype
    base_model: nn.Module

    def generate(self, **inputs: Tensor) -> Tensor: ...


class LoadingInfo(TypedDict):
    """How the tensors of a file match those of a model: names, and shapes in the file and in the model."""

    missing_keys: set[str]
    unexpected_keys: set[str]
    mismatched_keys: set[tuple[str, Sequence[int], Sequence[int]]]


class ModelClass(Protocol):
    """A class of models, or an Auto class that selects one."""

    def __call__(self, config: Config) -> nn.Module: ...

    def from_config(self, config: Config, *, dtype: torch.dtype, trust_remote_code: bool) -> nn.Module: ...

    def from_pretrained(self, folder: Path, /, **options: object) -> tuple[nn.Module, LoadingInfo]: ...


class Tokenizer(Protocol):
    """A tokenizer."""

    pad_token: str | None
    eos_token: str | None
    bos_token: str | None
    pad_token_id: int | None
    eos_token_id: int | None
    model_max_length: int
    padding_side: str
    chat_template: object

    def __call__(self, text: object, **options: object) -> Mapping[str, Tensor]: ...

    def batch_decode(self, tokens: Tensor, *, skip_special_tokens: bool) -> list[str]: ...

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str | None]: ...


class ImageProcessor(Protocol):
    """An image processor."""

    def __call__(self, *, images: object, return_tensors: str) -> Mapping[str, object]: ...


class Processor(Protocol):
    """A generative model's processor of prompts and images."""

    tokenizer: Tokenizer
    chat_template: object

    def __call__(
        self, *, text: object, images: object, padding: bool, return_tensors: str, **options: object
    ) -> Mapping[str, object]: ...

    def apply_chat_template(
        self, turns: object, /, *, chat_template: object, add_generation_prompt: bool
    ) -> object: ...


class ProcessorClass(Protocol):
    """A class of processors, or the Auto class that selects one."""

    def from_pretrained(self, folder: Path, /, *, trust_remote_code: bool) -> Processor: ...
