"""A backbone whose features are hashes: for tests and dry runs, where a model must be quick and repeatable."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Features, Tensors, Textual, Visual
from vlbench.core.cards import ModelCard
from vlbench.core.examples import ImageRef, Prompt
from vlbench.data.resources import Resources

WIDTH = 32
WORDS = ("yes", "no", "2", "red", "true", "false", "neutral")
"""What it writes."""


class Fake(nn.Module):
    """pooled = gain * hash(picture's key) * hash(text) + bias, where gain and bias train; opens no picture.

    R = T = 1 and D = 32. The same key and text give the same features on any machine.
    """

    def __init__(self) -> None:
        super().__init__()
        self.width = WIDTH
        self.gain = nn.Parameter(torch.ones(WIDTH))
        self.bias = nn.Parameter(torch.zeros(WIDTH))

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources) -> Self:
        """Build it: all sizes are the same, and nothing of `resources` is used."""
        return cls()

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        """The hashes [N, D] of the pictures' keys."""
        return {"hash": _hashes([ref.key for ref in refs])}

    def prepare_texts(self, texts: Sequence[str]) -> Tensors:
        """The hashes [M, D] of the texts."""
        return {"hash": _hashes(texts)}

    def see(self, images: Tensors, slot: Tensor) -> Visual:
        """Each picture as one token; `slot` does not count."""
        return Visual(*_one_token(images["hash"]))

    def read(self, texts: Tensors) -> Textual:
        """Each text as one token."""
        return Textual(*_one_token(texts["hash"]))

    def fuse(self, seen: Visual, read: Textual) -> Features:
        """The product of both tokens, scaled and shifted."""
        pooled = self.gain * seen.states[:, 0] * read.states[:, 0] + self.bias  # [P, D]
        return Features(pooled, read.states, seen.states, read.mask, seen.mask)

    def prepare_prompts(self, prompts: Sequence[Prompt], answers: Sequence[str] | None = None) -> Tensors:
        """Hashes of each prompt's pictures and words, multiplied [B, D], and of the answers [B, D]."""
        shown = [_hashes([ref.key for ref in prompt.images]).mean(dim=0) for prompt in prompts]
        asked = _hashes(["".join((*(s.query.text + s.answer for s in p.shots), p.query.text)) for p in prompts])
        made = {"hash": torch.stack(shown) * asked}
        return made if answers is None else made | {"answer": _hashes(answers)}

    def generate(self, prompts: Tensors, longest: int) -> list[str]:
        """A word that hashes choose, with the talk around it that models are given to."""
        chosen = prompts["hash"][:, : len(WORDS)].argmax(dim=1).tolist()
        return [f"Answer: {WORDS[place].capitalize()}.\nI have not looked." for place in chosen]

    def likelihood(self, prompts: Tensors, candidates: Sequence[str]) -> Tensor:
        """How well the candidates' hashes [C, D] go with the prompts'."""
        return prompts["hash"] @ _hashes(candidates).to(prompts["hash"]).T

    def nll(self, answered: Tensors) -> Tensor:
        """The squared distance of the answers' hashes from the prompts', scaled and shifted."""
        return (self.states(answered) - answered["answer"]).square().sum(dim=1)

    def states(self, prompts: Tensors) -> Tensor:
        """The prompts' hashes, scaled and shifted."""
        return self.gain * prompts["hash"] + self.bias

    def embed_images(self, seen: Visual) -> Tensor:
        """The picture's token, as long as 1."""
        return functional.normalize(self.gain * seen.states[:, 0] + self.bias, dim=-1)

    def embed_texts(self, read: Textual) -> Tensor:
        """The text's token, as long as 1."""
        return functional.normalize(self.gain * read.states[:, 0] + self.bias, dim=-1)


def _one_token(hashed: Tensor) -> tuple[Tensor, Tensor]:
    return hashed[:, None], torch.ones(len(hashed), 1, dtype=torch.bool, device=hashed.device)


def _hashes(texts: Sequence[str]) -> Tensor:
    rows = np.zeros((len(texts), WIDTH), np.float32)
    for row, text in enumerate(texts):
        rows[row] = _hash(text)
    return torch.from_numpy(rows)


def _hash(text: str) -> NDArray[np.float32]:
    """D numbers, evenly spread over [-1, 1)."""
    digest = hashlib.blake2b(text.encode(), digest_size=2 * WIDTH).digest()
    return (np.frombuffer(digest, "<i2") / 32768).astype(np.float32)
