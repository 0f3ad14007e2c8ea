"""Generation: a text, or the candidate that a generative model finds most likely.

Shapes: B examples, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlbench.core.backbone import Generator, Model
from vlbench.core.batch import PromptBatch
from vlbench.core.columns import ids_and_queries
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Examples
from vlbench.core.generation import GenerationBackend, GenerationRequest, LikelihoodBackend, Ready
from vlbench.core.results import Prediction
from vlbench.engine.batching.prediction_shards import PredictionShards
from vlbench.engine.evaluators.base import Evaluator, ResultFolders
from vlbench.engine.evaluators.predict import Work, predict_all
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.progress_timing import Pace, Timing
from vlbench.heads.forward import generator_of
from vlbench.heads.generate import LONGEST, GenerateHead


class Generation(Evaluator):
    """Answers by generated texts, or by candidates."""

    def build_head(self, model: Model) -> GenerateHead:
        """The prompt of the task's card, with the shots."""
        candidates = () if self.generates else self.job.labels
        return GenerateHead(self.job.task.card, candidates, self.job.shots)

    @property
    def generates(self) -> bool:
        """Whether answers are generated texts."""
        return self.job.spec.answer_by == "text"

    def evaluate(
        self, learner: Learner, examples: Examples, pace: Pace, folders: ResultFolders | None = None
    ) -> tuple[list[Prediction], Timing]:
        """As `generate`, by the learner's model; a VlbenchError if it is not generative."""
        device, head = pace.accelerator.device, learner.head
        if not isinstance(head, GenerateHead):
            raise TypeError(f"expected a head that generates, not {type(head).__name__}")
        with learner.evaluating():
            backend = ModelBackend(generator_of(learner.backbone), device)
            return generate(backend, head, examples, pace, folders.shards(learner, device) if folders else None)


@dataclass(frozen=True)
class ModelBackend:
    """A generative model in this process."""

    model: Generator
    device: torch.device

    def prepare(self, requests: Sequence[GenerationRequest]) -> PromptBatch:
        """The tensors of B prompts."""
        ids = tuple(request.example_id for request in requests)
        return PromptBatch(ids, self.model.prepare_prompts([request.prompt for request in requests]))

    def generate(self, ready: PromptBatch, max_new_tokens: int) -> list[str]:
        """A text for each of the B prompts."""
        return self.model.generate(ready.to(self.device).prompts, max_new_tokens)

    def loglikelihood(self, ready: PromptBatch, candidates: Sequence[str]) -> Tensor:
        """The log-likelihood [B, C] of each candidate."""
        return self.model.likelihood(ready.to(self.device).prompts, candidates)


def generate(
    backend: GenerationBackend[Ready],
    head: GenerateHead,
    examples: Examples,
    pace: Pace,
    shards: PredictionShards | None = None,
) -> tuple[list[Prediction], Timing]:
    """Answer the examples, by texts or by log-likelihoods [B, C] of the head's candidates; the rest as `predict_all`.

    Raises:
        VlbenchError: a likelihood is not a number, or the backend gives none for the candidates.
    """

    def prepare(rows: Sequence[int]) -> tuple[tuple[str, ...], Ready]:
        ids, queries = ids_and_queries(examples, rows)
        requests = [
            GenerationRequest(name, head.inputs.prompt(query)) for name, query in zip(ids, queries, strict=True)
        ]
        return ids, backend.prepare(requests)

    def answer(prepared: tuple[tuple[str, ...], Ready]) -> list[Prediction]:
        ids, ready = prepared
        if not head.candidates:
            return head.extract(backend.generate(ready, LONGEST), ids)
        if not isinstance(backend, LikelihoodBackend):
            raise VlbenchError(
                f"--answer-by candidates needs likelihoods, and {type(backend).__name__} gives none: use "
                f"--answer-by text"
            )
        return head.finish(backend.loglikelihood(ready, head.candidates), ids)

    return predict_all(examples, Work(prepare, answer), pace, shards)
