"""Generation: a text, or the candidate that a generative model finds most likely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlbench.core.backbone import Generator, Model
from vlbench.core.batch import PromptBatch
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Examples
from vlbench.core.generation import GenerationBackend, GenerationRequest, LikelihoodBackend, Ready
from vlbench.core.results import Prediction
from vlbench.engine.batching.batches import Prepared
from vlbench.engine.batching.prediction_shards import Shards
from vlbench.engine.evaluators.base import Evaluator, Kept
from vlbench.engine.evaluators.predict import Work, predict_all
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.progress_timing import Pace, Timing
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
        self, learner: Learner, examples: Examples, pace: Pace, kept: Kept | None = None
    ) -> tuple[list[Prediction], Timing]:
        """As `generate`, by the learner's model."""
        shards = kept.shards(learner, pace.accelerator.device) if kept else None
        return generate_answers(learner, examples, pace, shards)


@dataclass(frozen=True)
class ModelBackend:
    """A generative model in this process."""

    model: Generator
    device: torch.device

    def prepare(self, requests: Sequence[GenerationRequest]) -> PromptBatch:
        """The tensors of the prompts."""
        ids = tuple(request.example_id for request in requests)
        return PromptBatch(ids, self.model.prepare_prompts([request.prompt for request in requests]))

    def generate(self, ready: PromptBatch, max_new_tokens: int) -> list[str]:
        """A text per prompt."""
        return self.model.generate(ready.to(self.device).prompts, max_new_tokens)

    def loglikelihood(self, ready: PromptBatch, candidates: Sequence[str]) -> Tensor:
        """The log-likelihood [B, C] of each candidate."""
        return self.model.likelihood(ready.to(self.device).prompts, candidates)


def generate_answers(
    learner: Learner, examples: Examples, pace: Pace, shards: Shards | None = None
) -> tuple[list[Prediction], Timing]:
    """Answer the examples by the learner's model; the rest as `generate`.

    Raises:
        VlbenchError: the model is not generative, or a likelihood is not a number.
    """
    if not isinstance(learner.backbone, Generator) or not isinstance(learner.head, GenerateHead):
        raise VlbenchError(f"{type(learner.backbone).__name__} is not a generative model: use --mode finetune")
    with learner.evaluating():
        backend = ModelBackend(learner.backbone, pace.accelerator.device)
        return generate(backend, learner.head, examples, pace, shards)


def generate(
    backend: GenerationBackend[Ready], head: GenerateHead, examples: Examples, pace: Pace, shards: Shards | None = None
) -> tuple[list[Prediction], Timing]:
    """Answer the examples in their order; the rest as `predict_all`.

    Raises:
        VlbenchError: candidates are chosen from, and the backend gives no likelihoods.
    """

    def requests(rows: Sequence[int]) -> list[GenerationRequest]:
        block = [examples[row] for row in rows]
        return [GenerationRequest(example.id, head.inputs.prompt(example.query)) for example in block]

    def prepare(rows: Sequence[int]) -> tuple[tuple[str, ...], Ready]:
        block = requests(rows)
        return tuple(request.example_id for request in block), backend.prepare(block)

    def answer(prepared: tuple[tuple[str, ...], Ready]) -> list[Prediction]:
        ids, ready = prepared
        if head.candidates:
            if not isinstance(backend, LikelihoodBackend):
                raise VlbenchError(
                    f"--answer-by candidates needs likelihoods, and {type(backend).__name__} gives none: use "
                    f"--answer-by text"
                )
            return head.finish(backend.loglikelihood(ready, head.candidates), ids)
        return head.extract(backend.generate(ready, LONGEST), ids)

    return predict_all(examples, Work(lambda blocks: Prepared(blocks, prepare), answer), pace, shards)
