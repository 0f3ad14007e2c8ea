"""A fast, deterministic backbone whose features are hashes, for tests and dry runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Features, Tensors, Textual, Visual
from vlbench.core.cards import ModelCard
from vlbench.core.examples import ImageRef, Prompt
from vlbench.data.resources import Resources
from vlbench.models.layers.attention import unpadded

WIDTH = 32
WORDS = ("yes", "no", "2", "red", "true", "false", "neutral")
"""The words that it generates."""


class Fake(nn.Module):
    """pooled = gain * hash(image key) * hash(text) + bias, with trained gain and bias; opens no image.

    R = T = 1 and D = 32. The same key and text give the same features on any machine. It is a dual encoder and a
    `core.backbone.Generator` too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.width = WIDTH
        self.gain = nn.Parameter(torch.ones(WIDTH))
        self.bias = nn.Parameter(torch.zeros(WIDTH))

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources) -> Self:
        """Build it: all sizes are equal, and `resources` are not used."""
        return cls()

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        """The hashes [N, D] of the images' keys."""
        return {"hash": _hashes([ref.key for ref in refs])}

    def prepare_texts(self, texts: Sequence[str]) -> Tensors:
        """The hashes [M, D] of the texts."""
        return {"hash": _hashes(texts)}

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """Each image as one token [N, 1, D]; `slot` is unused."""
        return Visual(*unpadded(images["hash"][:, None]))

    def read(self, texts: Tensors) -> Textual:
        """Each text as one token [M, 1, D]."""
        return Textual(*unpadded(texts["hash"][:, None]))

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """The product of both tokens, scaled and shifted: pooled [P, D]."""
        pooled = self.gain * seen.states[:, 0] * read.states[:, 0] + self.bias  # [P, D]
        return Features(pooled, read.states, seen.states, read.mask, seen.mask)

    def prepare_prompts(self, prompts: Sequence[Prompt], answers: Sequence[str] | None = None) -> Tensors:
        """Hashes [B, D] of each prompt's images times those of its texts, and hashes [B, D] of the answers."""
        images = [_hashes([ref.key for ref in prompt.images]).mean(dim=0) for prompt in prompts]
        texts = _hashes(["".join((*(s.query.text + s.answer for s in p.shots), p.query.text)) for p in prompts])
        prepared = {"hash": torch.stack(images) * texts}
        return prepared if answers is None else prepared | {"answer": _hashes(answers)}

    def generate(self, prompts: Tensors, longest: int) -> list[str]:
        """A word chosen by the hash, inside a longer sentence, as real models answer."""
        chosen = prompts["hash"][:, : len(WORDS)].argmax(dim=1).tolist()
        return [f"Answer: {WORDS[place].capitalize()}.\nI have not looked." for place in chosen]

    def likelihood(self, prompts: Tensors, candidates: Sequence[str]) -> Tensor:
        """The dot products [B, C] of the prompts' and the candidates' hashes."""
        return prompts["hash"] @ _hashes(candidates).to(prompts["hash"]).T

    def nll(self, answered: Tensors) -> Tensor:
        """The squared distance [B] of the answers' hashes from the prompts' states."""
        return (self.states(answered) - answered["answer"]).square().sum(dim=1)

    def states(self, prompts: Tensors) -> Tensor:
        """The prompts' hashes [B, D], scaled and shifted."""
        return self.gain * prompts["hash"] + self.bias

    def embed_images(self, seen: Visual) -> Tensor:
        """The image's token, scaled, shifted and normalized to length 1: [N, D]."""
        return functional.normalize(self.gain * seen.states[:, 0] + self.bias, dim=-1)

    def embed_texts(self, read: Textual) -> Tensor:
        """The text's token, scaled, shifted and normalized to length 1: [M, D]."""
        return functional.normalize(self.gain * read.states[:, 0] + self.bias, dim=-1)


def _hashes(texts: Sequence[str]) -> Tensor:
    """The hashes [B, D] of B texts, uniform over [-1, 1)."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=2 * WIDTH).digest() for text in texts)
    return torch.from_numpy((np.frombuffer(digests, "<i2") / 32768).astype(np.float32).reshape(len(texts), WIDTH))
