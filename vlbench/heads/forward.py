"""The forward pass of a model under a head, stage by stage: the only place where one is written.

Shapes: B examples, N images, M texts and P pairs of a batch, R visual tokens, T text tokens, D width, E embedding
width.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeGuard, TypeVar, cast

from torch import Tensor

from vlbench.core.backbone import Backbone, DualEncoder, Features, Generator, Model, PoolingBackbone, Textual, Visual
from vlbench.core.batch import Batch, PairBatch, PromptBatch
from vlbench.core.errors import VlbenchError
from vlbench.core.user_code import UserCodeError

Returned = TypeVar("Returned", Visual, Textual, Features)


class Forward:
    """A forward pass: its model and batch, and the results of the stages that have run.

    visual: states [N, R, D] of the images. textual: states [M, T, D] of the texts. features: of the P pairs, or the B
    prompts. logits: the head's. texts: B generated texts.
    """

    visual: Visual
    textual: Textual
    features: Features
    logits: Tensor
    texts: list[str]

    def __init__(self, model: Model, batch: Batch) -> None:
        self.model, self.batch = model, batch

    def run(self, stages: Iterable[Stage]) -> Self:
        """Run the stages in their order."""
        for stage in stages:
            stage.run(self)
        return self

    @property
    def backbone(self) -> Backbone:
        """The model of a batch of pairs."""
        return cast(Backbone, self.model)

    @property
    def generator(self) -> Generator:
        """The model of a batch of prompts. Raises as `generator_of` does."""
        return generator_of(self.model)

    @property
    def pairs(self) -> PairBatch:
        """The batch, of pairs."""
        if not isinstance(self.batch, PairBatch):
            raise TypeError(f"expected a batch of pairs, not {type(self.batch).__name__}")
        return self.batch

    @property
    def prompts(self) -> PromptBatch:
        """The batch, of prompts."""
        if not isinstance(self.batch, PromptBatch):
            raise TypeError(f"expected a batch of prompts, not {type(self.batch).__name__}")
        return self.batch

    def visual_pairs(self) -> Visual:
        """The visual states [P, R, D] of the pairs."""
        return self.visual.take(self.pairs.image_rows)

    def textual_pairs(self) -> Textual:
        """The textual states [P, T, D] of the pairs."""
        return self.textual.take(self.pairs.text_rows)


@dataclass(frozen=True)
class Stage:
    """A named part of a forward pass; `run` reads the results of the stages before it, sets and returns its own."""

    name: str
    run: Callable[[Forward], object]


@dataclass(frozen=True)
class Embedded:
    """The embeddings of a batch's P pairs, without logits or loss.

    images, texts: [P, E], of length 1. head: a copy of each parameter of the head, in their order, through which a
    gradient reaches the forward pass that DDP watches.
    """

    images: Tensor
    texts: Tensor
    head: tuple[Tensor, ...]


def encode_images(forward: Forward) -> Visual:
    """Encode each distinct image once: sets `visual`."""
    visual = forward.backbone.see(forward.pairs.images, forward.pairs.slots)
    forward.visual = _returned(forward, "see", visual, Visual)
    return forward.visual


def _encode_texts(forward: Forward) -> Textual:
    """Encode each distinct text once: sets `textual`."""
    forward.textual = _returned(forward, "read", forward.backbone.read(forward.pairs.texts), Textual)
    return forward.textual


def fuse(backbone: Backbone, visual: Visual, textual: Textual, pooled_only: bool = False) -> Features:
    """The features of pairs with visual [P, R, D] and textual [P, T, D] states.

    pooled_only: only `pooled` is read, so a backbone that can compute it alone is asked to.
    """
    if pooled_only and _can_pool(backbone):
        return backbone.fuse(visual, textual, pooled_only=True)
    return backbone.fuse(visual, textual)


def _can_pool(backbone: Backbone) -> TypeGuard[PoolingBackbone]:
    return "pooled_only" in inspect.signature(backbone.fuse).parameters


def _fuse_pairs(forward: Forward, pooled_only: bool = False) -> Features:
    """Fuse each pair: sets `features`."""
    features = fuse(forward.backbone, forward.visual_pairs(), forward.textual_pairs(), pooled_only)
    forward.features = _returned(forward, "fuse", features, Features)
    given, expected = tuple(features.pooled.shape), (len(forward.pairs.image_rows), forward.backbone.width)
    if given != expected:
        raise _wrong_return(forward, "fuse", f"pooled features of shape {list(given)}", f"shape {list(expected)}")
    return forward.features


def _returned(forward: Forward, method: str, value: object, kind: type[Returned]) -> Returned:
    """What a method of the model returned; raises UserCodeError if it is of another type."""
    if not isinstance(value, kind):
        raise _wrong_return(forward, method, f"a {type(value).__name__}", f"a {kind.__name__}")
    return value


def _wrong_return(forward: Forward, method: str, given: str, expected: str) -> UserCodeError:
    """The error for what a method of a model outside vlbench returned: later code would fail far from the cause."""
    kind = type(forward.model)
    file = getattr(sys.modules.get(kind.__module__), "__file__", kind.__module__)
    return UserCodeError(f"{file}, {kind.__name__}.{method} returned {given}: expected {expected}, so correct it there")


def _encode_prompts(forward: Forward) -> Features:
    """Encode each prompt: sets `features`, of which only `pooled` holds anything."""
    forward.features = Features.of_pooled(forward.generator.states(forward.prompts.prompts))
    return forward.features


ENCODE = (Stage("see", encode_images), Stage("read", _encode_texts))
"""The stages that encode images and texts separately."""
PAIRS = (*ENCODE, Stage("fuse", _fuse_pairs))
"""The stages that make features of pairs."""
POOLED_PAIRS = (*ENCODE, Stage("fuse", partial(_fuse_pairs, pooled_only=True)))
"""The stages that make features of pairs for a head that reads `pooled` only."""
PROMPTS = (Stage("prompt", _encode_prompts),)
"""The stage that makes features of prompts."""


def encode_pairs(model: Model, batch: Batch) -> tuple[Visual, Textual]:
    """The visual [P, R, D] and the textual [P, T, D] states of a batch's pairs."""
    forward = Forward(model, batch).run(ENCODE)
    return forward.visual_pairs(), forward.textual_pairs()


def embed_pairs(model: Model, visual: Visual, textual: Textual) -> tuple[Tensor, Tensor]:
    """Unit vectors of N images [N, E] and M texts [M, E]. Raises as `dual_encoder` does."""
    encoder = dual_encoder(model)
    return encoder.embed_images(visual), encoder.embed_texts(textual)


def dual_encoder(model: Model) -> DualEncoder:
    """The model as a dual encoder; a VlbenchError if it is a cross-encoder only."""
    if not isinstance(model, DualEncoder):
        raise VlbenchError(
            f"{type(model).__name__} does not embed images and texts separately: leave out --rerank-k, and let its "
            f"card say `ranks_by: cross`"
        )
    return model


def generator_of(model: object) -> Generator:
    """The model as a generative one; a VlbenchError if it is not."""
    if not isinstance(model, Generator):
        raise VlbenchError(f"{type(model).__name__} is not a generative model: use --mode finetune")
    return model
