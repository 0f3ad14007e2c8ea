"""What a model is to vlbench: it sees, it reads, it fuses.

Shapes: N pictures of a batch, M texts of a batch, P pairs of both, R visual tokens, T text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from vlbench.core.cards import ScaleRange
from vlbench.core.examples import ImageRef, Prompt
from vlbench.core.record import Decoding, LoadReport

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn import Parameter

Tensors: TypeAlias = "dict[str, Tensor]"
"""Prepared inputs by name; the first dimension of each is the batch (N or M)."""


@dataclass(frozen=True)
class Visual:
    """What was seen: states [N, R, D], mask [N, R] (True where a token is real)."""

    states: Tensor
    mask: Tensor

    def take(self, rows: Tensor) -> Visual:
        """The rows [P] in that order, so that pairs can share what was seen once."""
        return Visual(self.states[rows], self.mask[rows])


@dataclass(frozen=True)
class Textual:
    """What was read: states [M, T, D], mask [M, T] (True where a token is real)."""

    states: Tensor
    mask: Tensor

    def take(self, rows: Tensor) -> Textual:
        """The rows [P] in that order, so that pairs can share what was read once."""
        return Textual(self.states[rows], self.mask[rows])


@dataclass(frozen=True)
class Features:
    """Both together: pooled [P, D], text [P, T, D], visual [P, R, D], and their masks."""

    pooled: Tensor
    text: Tensor
    visual: Tensor
    text_mask: Tensor
    visual_mask: Tensor


class Backbone(Protocol):
    """An nn.Module that sees, reads and fuses; row b of every result depends on row b of the input only.

    `prepare_images` and `prepare_texts` run on the CPU, in workers, and know nothing of answers.
    `slot` [N] is each picture's place in its query (NLVR2: 0 left, 1 right).
    """

    width: int

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors: ...

    def prepare_texts(self, texts: Sequence[str]) -> Tensors: ...

    def see(self, images: Tensors, slot: Tensor) -> Visual: ...

    def read(self, texts: Tensors) -> Textual: ...

    def fuse(self, seen: Visual, read: Textual) -> Features: ...


@runtime_checkable
class Fitted(Protocol):
    """A backbone that learns constants of its input (a mean, a scale) from training pictures before any weight."""

    def fit(self, refs: Sequence[ImageRef]) -> None:
        """Set the constants; they are buffers, so they travel with the weights."""
        ...


@runtime_checkable
class EndToEnd(Protocol):
    """A backbone with a network over pixels in it that a recipe may train by itself."""

    def visual_parameters(self) -> Iterator[Parameter]:
        """That network's."""
        ...


@runtime_checkable
class Following(Protocol):
    """A backbone with modules that gather running statistics of their input in training mode, besides batch norms.

    While it is finetuned they stay in eval mode, as batch norms do.
    """

    def following(self) -> Iterator[nn.Module]:
        """These modules."""
        ...


@runtime_checkable
class Sparing(Protocol):
    """A backbone some tensors of which only its pretraining uses: weights without them are whole all the same."""

    def spared(self) -> tuple[str, ...]:
        """How these tensors' names begin."""
        ...


@dataclass(frozen=True)
class PretrainedWeights:
    """What came of loading them. head: that of the same training under the names of this package's heads, or empty."""

    report: LoadReport
    head: dict[str, Tensor]


@runtime_checkable
class Pretrained(Protocol):
    """A backbone with weights of its own somewhere, which runs begin with unless told otherwise."""

    def load_pretrained(self) -> PretrainedWeights:
        """Fill the backbone with them.

        Raises:
            VlbenchError: exit 6, they do not fit.
        """
        ...


@runtime_checkable
class Adaptable(Protocol):
    """A backbone that low-rank adapters can be put into."""

    def adaptable(self) -> nn.Module:
        """Its network, as transformers makes it; what is changed in there counts at once."""
        ...


@runtime_checkable
class Augmenting(Protocol):
    """A backbone whose pictures can be changed by chance while it is finetuned."""

    def augmented(self, refs: Sequence[ImageRef], rng: Random) -> Tensors:
        """As `prepare_images`, of changed pictures; how one is changed hangs on `rng` and on it, not on the others."""
        ...


@runtime_checkable
class MultiScale(Protocol):
    """A backbone that takes images of any size, so that they can be resized at random while it is finetuned."""

    def rescaled(self, refs: Sequence[ImageRef], rng: Random, scales: ScaleRange) -> Tensors:
        """As `prepare_images`, of images of random sizes; the size of one depends on `rng` and on it, on no other."""
        ...


@runtime_checkable
class Attentive(Protocol):
    """A backbone that can tell what of the picture its answer attends to, and where in the picture that is.

    Both are made beside the features, by calls of their own: answers neither change nor cost more for them.
    """

    def attend(self, seen: Visual, read: Textual) -> Tensor:
        """What [CLS], which the answer is read from, attends to in the last layer in which it meets the picture.

        Returns: [P, R], the mean of the layer's heads; each row is 0 or more, sums to 1 over the tokens that stand for
            a part of the picture, and is 0 elsewhere: at padding, at a class token.
        Source: Vaswani et al. 2017, eq. 1.
        """
        ...

    def places(self, images: Tensors) -> Tensor:
        """The box of each visual token, [N, R, 4]: left, top, right and bottom as shares of the picture's sides.

        All zeros where a token stands for no part of the picture.
        """
        ...


@runtime_checkable
class DualEncoder(Protocol):
    """A backbone that also embeds pictures and texts apart, so that a dot product says how well they match."""

    def embed_images(self, seen: Visual) -> Tensor:
        """What was seen -> vectors of length 1, [N, E]."""
        ...

    def embed_texts(self, read: Textual) -> Tensor:
        """What was read -> vectors of length 1, [M, E]."""
        ...


@runtime_checkable
class Generator(Protocol):
    """A model that goes on in words from pictures and a prompt, which it is given together; B prompts, C candidates."""

    width: int

    def prepare_prompts(self, prompts: Sequence[Prompt], answers: Sequence[str] | None = None) -> Tensors:
        """The tensors of B prompts, together with the answers to them where those are learned; on the CPU, in workers.

        Only among the tensors of prompts may be some whose first dimension is not the batch, such as patches.
        """
        ...

    def generate(self, prompts: Tensors, longest: int) -> list[str]:
        """What it writes after each prompt: at most `longest` tokens, always the likeliest."""
        ...

    def likelihood(self, prompts: Tensors, candidates: Sequence[str]) -> Tensor:
        """The log-likelihood [B, C] of each candidate and its end after the prompt."""
        ...

    def nll(self, answered: Tensors) -> Tensor:
        """The negative log-likelihood [B] per token of each answer and its end, which training lowers."""
        ...

    def states(self, prompts: Tensors) -> Tensor:
        """What it makes of each prompt: the last hidden state of the prompt's last token, [B, D]."""
        ...


Model: TypeAlias = Backbone | Generator
"""What a head answers from: a backbone of pairs, or a generative model."""


@runtime_checkable
class Rendering(Protocol):
    """A generator that can say what text a prompt becomes, and how it generates."""

    chat_template: str

    def rendered(self, prompt: Prompt) -> str:
        """The text that its tokenizer gets; each image is still one placeholder in it."""
        ...

    def decoding(self, longest: int) -> Decoding:
        """How `generate` chooses at most `longest` tokens."""
        ...


@runtime_checkable
class ImageProcessing(Protocol):
    """A model whose library prepares its images."""

    def image_processing(self) -> dict[str, str]:
        """image_processor: its class. image_backend: the library that resizes images, such as pil or torchvision."""
        ...
