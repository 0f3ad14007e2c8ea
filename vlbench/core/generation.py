"""What generates answers for an evaluator: a model in this process, or anything else that completes prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from vlbench.core.examples import Prompt

if TYPE_CHECKING:
    from torch import Tensor

Ready = TypeVar("Ready")
"""Requests as the backend takes them."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """The prompt of one example."""

    example_id: str
    prompt: Prompt


class GenerationBackend(Protocol[Ready]):
    """Completes prompts; B requests. `prepare` runs in worker processes where there are any."""

    def prepare(self, requests: Sequence[GenerationRequest]) -> Ready: ...

    def generate(self, ready: Ready, max_new_tokens: int) -> list[str]:
        """The most likely text after each of the B prompts."""


@runtime_checkable
class LikelihoodBackend(GenerationBackend[Ready], Protocol[Ready]):
    """A backend that also tells how likely given answers are."""

    def loglikelihood(self, ready: Ready, candidates: Sequence[str]) -> Tensor:
        """The log-likelihood [B, C] of each candidate and its end after each prompt."""
