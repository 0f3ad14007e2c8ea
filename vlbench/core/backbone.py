"""The interfaces of models: a backbone encodes images and texts and fuses them; a generator completes prompts.

Shapes: N images of a batch, M texts of a batch, P pairs of both, R visual tokens, T text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias, runtime_checkable

from vlbench.core.cards import ScaleRange
from vlbench.core.examples import ImageRef, Prompt
from vlbench.core.record import Decoding, LoadReport

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.nn import Parameter

Tensors: TypeAlias = "dict[str, Tensor]"
"""Prepared inputs by name; the first dimension of each is the batch (N or M)."""


@dataclass(frozen=True)
class _Tokens:
    states: Tensor
    mask: Tensor
    is_unpadded: bool = False

    @property
    def keys(self) -> Tensor:
        """The mask for attention: `mask`, or one of no columns where the host knows that no token is padding."""
        return self.mask[:, :0] if self.is_unpadded else self.mask

    def take(self, rows: Tensor) -> Self:
        """The rows [P] in that order, so that pairs can share what was encoded once."""
        return replace(self, states=self.states[rows], mask=self.mask[rows])


@dataclass(frozen=True)
class Visual(_Tokens):
    """Encoded images: states [N, R, D], mask [N, R] (True where a token is real)."""


@dataclass(frozen=True)
class Textual(_Tokens):
    """Encoded texts: states [M, T, D], mask [M, T] (True where a token is real)."""


@dataclass(frozen=True)
class Features:
    """Fused pairs: pooled [P, D], text [P, T, D], visual [P, R, D], and the masks of both."""

    pooled: Tensor
    text: Tensor
    visual: Tensor
    text_mask: Tensor
    visual_mask: Tensor

    @classmethod
    def of_pooled(cls, pooled: Tensor) -> Self:
        """Features with pooled [P, D] and no tokens, T = R = 0, which is all that a classifier or a ranking reads."""
        states, mask = pooled[:, :0, None], pooled[:, :0].bool()
        return cls(pooled, states, states, mask, mask)


class Backbone(Protocol):
    """An nn.Module that encodes images (`see`) and texts (`read`) and fuses them.

    Row b of every result depends on row b of the input only. `prepare_images` and `prepare_texts` run on the CPU, in
    workers, and get no answers. `slot` [N] is each image's place in its query (NLVR2: 0 left, 1 right).
    """

    width: int

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors: ...

    def prepare_texts(self, texts: Sequence[str]) -> Tensors: ...

    def see(self, images: Tensors, slot: Tensor) -> Visual: ...

    def read(self, texts: Tensors) -> Textual: ...

    def fuse(self, seen: Visual, read: Textual) -> Features: ...


class PoolingBackbone(Backbone, Protocol):
    """A backbone whose `fuse` can compute `pooled` alone, for heads that read nothing else.

    A training step may compute all features all the same, so that dropout draws the same numbers. A subclass whose
    `fuse` does not take `pooled_only` is asked for all features.
    """

    def fuse(self, seen: Visual, read: Textual, pooled_only: bool = False) -> Features: ...


@runtime_checkable
class Fitted(Protocol):
    """A backbone that computes constants of its input (a mean, a scale) from training images before training."""

    def fit(self, refs: Sequence[ImageRef]) -> None:
        """Set the constants; they are buffers, so they are saved with the weights."""


@runtime_checkable
class EndToEnd(Protocol):
    """A backbone that contains a network over pixels, which a recipe may train with its own optimizer."""

    def visual_parameters(self) -> Iterator[Parameter]:
        """The parameters of that network."""


@runtime_checkable
class Following(Protocol):
    """A backbone with modules, besides batch norms, that gather running statistics of their input in training mode."""

    def following(self) -> Iterator[nn.Module]:
        """These modules; they stay in eval mode during finetuning, as batch norms do."""


@runtime_checkable
class Sparing(Protocol):
    """A backbone with tensors that only its pretraining uses: weights without them are complete."""

    def spared(self) -> tuple[str, ...]:
        """The prefixes of these tensors' names."""


@dataclass(frozen=True)
class PretrainedWeights:
    """The result of loading weights. head: that of the same training, under the names of vlbench's heads, or empty."""

    report: LoadReport
    head: dict[str, Tensor]


@runtime_checkable
class Pretrained(Protocol):
    """A backbone with pretrained weights of its own, from which runs start by default."""

    def load_pretrained(self) -> PretrainedWeights:
        """Fill the backbone with them; raises VlbenchError (exit 6) if they do not fit."""


@runtime_checkable
class LowPrecision(Protocol):
    """A backbone that can hold its weights in a lower precision while it is not trained."""

    def lower(self, dtype: torch.dtype) -> None:
        """Convert the weights to `dtype`, in place; what is computed under autocast of `dtype` must accept them."""


@runtime_checkable
class Adaptable(Protocol):
    """A backbone that low-rank adapters can be put into."""

    def adaptable(self) -> nn.Module:
        """Its network, as transformers builds it; changes to its modules take effect."""


@runtime_checkable
class Augmenting(Protocol):
    """A backbone whose images can be augmented at random while it is finetuned."""

    def augmented(self, refs: Sequence[ImageRef], rng: Random) -> Tensors:
        """As `prepare_images`, of augmented images; each depends on `rng` and the image, on no other image."""


@runtime_checkable
class MultiScale(Protocol):
    """A backbone that takes images of any size, so that they can be resized at random while it is finetuned."""

    def rescaled(self, refs: Sequence[ImageRef], rng: Random, scales: ScaleRange) -> Tensors:
        """As `prepare_images`, of images of random sizes; each depends on `rng` and the image, on no other image."""


@runtime_checkable
class Attentive(Protocol):
    """A backbone that can compute attention over the image, and the box of each visual token.

    Both are computed by separate calls, so that answers neither change nor take longer.
    """

    def attend(self, seen: Visual, read: Textual) -> Tensor:
        """The attention of [CLS], the input of the head, in the last layer in which it attends to the image.

        Returns: [P, R], the mean of the layer's heads; each row is 0 or more, sums to 1 over the tokens of image parts,
            and is 0 elsewhere: at padding, at a class token.
        Source: Vaswani et al. 2017, eq. 1.
        """

    def places(self, images: Tensors) -> Tensor:
        """The box of each visual token, [N, R, 4]: left, top, right and bottom as fractions of the image's sides.

        All zeros for a token that stands for no part of the image.
        """


@runtime_checkable
class DualEncoder(Protocol):
    """A backbone that also embeds images and texts separately; the dot product of embeddings is their similarity."""

    def embed_images(self, seen: Visual) -> Tensor:
        """Unit-length embeddings [N, E] of encoded images."""

    def embed_texts(self, read: Textual) -> Tensor:
        """Unit-length embeddings [M, E] of encoded texts."""


@runtime_checkable
class Generator(Protocol):
    """A generative model, which completes prompts of images and text; B prompts, C candidates."""

    width: int

    def prepare_prompts(self, prompts: Sequence[Prompt], answers: Sequence[str] | None = None) -> Tensors:
        """The tensors of B prompts, with their answers where these are learned; on the CPU, in workers.

        Unlike in a backbone's, the first dimension of some (patches) may be other than the batch.
        """

    def generate(self, prompts: Tensors, longest: int) -> list[str]:
        """The completion of each prompt: at most `longest` tokens, without sampling."""

    def likelihood(self, prompts: Tensors, candidates: Sequence[str]) -> Tensor:
        """The log-likelihood [B, C] of each candidate and its end after the prompt."""

    def nll(self, answered: Tensors) -> Tensor:
        """The negative log-likelihood [B] per token of each answer and its end, which training lowers."""

    def states(self, prompts: Tensors) -> Tensor:
        """The last hidden state of each prompt's last token, [B, D]."""


Model: TypeAlias = Backbone | Generator
"""The input of a head: a backbone of pairs, or a generative model."""


@runtime_checkable
class Rendering(Protocol):
    """A generator that can show the text of a prompt and its decoding settings."""

    chat_template: str

    def rendered(self, prompt: Prompt) -> str:
        """The text that its tokenizer gets; each image is still one placeholder in it."""

    def decoding(self, longest: int) -> Decoding:
        """How `generate` chooses at most `longest` tokens."""


@runtime_checkable
class ImageProcessing(Protocol):
    """A model whose library prepares its images."""

    def image_processing(self) -> dict[str, str]:
        """image_processor: its class. image_backend: the library that resizes images, such as pil or torchvision."""
