"""A dual encoder that ranks: images and texts are embedded separately, and a pair's score is one dot product.

Shapes: B pairs, which are examples, N images, M texts, E embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Model
from vlbench.core.batch import Batch
from vlbench.core.examples import Example, Examples, image_of
from vlbench.heads.base import Head, count_own_first
from vlbench.heads.forward import ENCODE, Embedded, Forward, Stage, embed_pairs, encode_pairs

TEMPERATURE, MAX_SCALE = 0.07, 100.0


class DualHead(Head):
    """A learned temperature over dot products, trained on batches whose other pairs are the negatives (InfoNCE).

    Source: Radford et al. 2021 (CLIP): the scale starts at 1 / 0.07 and stays at or below 100, or the scale loaded if
    that is larger (SigLIP's is 117). The parameter itself is clamped, so that its gradient never vanishes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / TEMPERATURE)))
        self.log_limit = math.log(MAX_SCALE)
        self.register_state_dict_pre_hook(lambda head, *_: head.bound())  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(lambda head, *_: head.bound(float(head.log_scale.detach())))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def bound(self, log_scale: float = -math.inf) -> None:
        """Clamp the scale to its limit, which becomes `log_scale` where that is higher."""
        self.log_limit = max(self.log_limit, log_scale)
        self.log_scale.clamp_(max=self.log_limit)

    def targets(self, examples: Sequence[Example[object]]) -> Tensor:
        """A number [B] for each example's image, int64: all texts of one image are positives of it."""
        numbers: dict[str, int] = {}
        images = [numbers.setdefault(image_of(example), len(numbers)) for example in examples]
        return torch.tensor(images, dtype=torch.int64)

    def stages(self) -> tuple[Stage, ...]:
        """Encode images and texts, then embed and compare them."""
        return (*ENCODE, Stage("head", self._compare))

    def _compare(self, forward: Forward) -> Tensor:
        forward.logits = self(*embed_pairs(forward.model, forward.visual_pairs(), forward.textual_pairs()))
        return forward.logits

    def embed(self, model: Model, batch: Batch) -> Embedded:
        """The embeddings [B, E] of a batch's pairs. Raises as `dual_encoder` does."""
        images, texts = embed_pairs(model, *encode_pairs(model, batch))
        return Embedded(images, texts, tuple(parameter.clone() for parameter in self.parameters()))

    def scores(self, model: Model, batch: Batch) -> Tensor:
        """The dot product of each pair, [B, 1]."""
        images, texts = embed_pairs(model, *encode_pairs(model, batch))
        return (images * texts).sum(dim=1, keepdim=True)

    def own_first(self, logits: Tensor, rows: int) -> tuple[int, float]:
        """As `Head.own_first`, of logits [B, B], among all images of the batch."""
        return count_own_first(logits, logits.diagonal()), rows / logits.shape[1]

    def contrasted_images(self, examples: Examples) -> tuple[str, ...]:
        """The image of each example."""
        return tuple(image_of(example) for example in examples)

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        """Unit vectors [N, E] and [M, E] -> logits [N, M]."""
        self.bound()
        return self.log_scale.exp() * images @ texts.T

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits [B, B] over rows and over columns, positives sharing the probability; a scalar."""
        right = (targets[:, None] == targets).to(logits)
        share = right / right.sum(dim=1, keepdim=True)
        return (functional.cross_entropy(logits, share) + functional.cross_entropy(logits.T, share)) / 2
