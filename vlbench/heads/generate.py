"""Answers that a generative model writes, or the candidate that it finds most likely; the head has no weights.

Shapes: B examples, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from vlbench.core.backbone import Model
from vlbench.core.batch import Draw, PromptBatch
from vlbench.core.cards import TaskCard
from vlbench.core.errors import DataError
from vlbench.core.examples import Example, Examples, consensus_of
from vlbench.core.results import Prediction
from vlbench.data.text.extraction import RULES
from vlbench.heads.base import Head
from vlbench.heads.forward import Forward, Stage
from vlbench.heads.inputs import PromptInputs
from vlbench.heads.labels import check_finite, ranked

LONGEST = 20
"""Tokens of an answer at most: answers of VQA and GQA have one to five words."""


class GenerateHead(Head):
    """The prompt of a task's card, and its rule that extracts an answer from the generated text.

    candidates: chosen from by likelihood; empty: the model generates. shots: shown with their answers before each
    example.
    """

    inputs: PromptInputs
    is_single_pass = False

    def __init__(self, card: TaskCard, candidates: tuple[str, ...] = (), shots: Examples = ()) -> None:
        super().__init__()
        self.rule, self.labels, self.candidates = RULES[card.extraction], card.labels, candidates
        self.inputs = PromptInputs(card.prompt).with_shots([(shot.query, self.target(shot)) for shot in shots])

    def choosing(self, candidates: tuple[str, ...]) -> GenerateHead:
        """The same, choosing from these candidates."""
        head = copy(self)
        head.candidates = candidates
        return head

    def target(self, example: Example[object]) -> str:
        """The answer that is learned; references enter training nowhere else.

        Raises:
            DataError: there is none, naming the example.
        """
        answer = consensus_of(example)
        if not answer:
            raise DataError(f"example {example.id!r} has no answer to learn from: give another --train-split")
        return answer

    def collate(self, examples: Examples, rows: Sequence[int], model: Model, draw: Draw | None = None) -> PromptBatch:
        """The batch of these rows; with a draw the prompts hold the answers that are learned."""
        block = [examples[row] for row in rows]
        answers = None if draw is None else [self.target(example) for example in block]
        ids, queries = tuple(example.id for example in block), [example.query for example in block]
        batch = self.inputs.collate(ids, queries, model, draw, answers)
        return batch if draw is None else PromptBatch(ids, batch.prompts, self.targets(block))

    def targets(self, examples: Sequence[Example[object]]) -> Tensor:
        """Empty: what is learned is in the prompts."""
        return torch.empty(0)

    def stages(self) -> tuple[Stage, ...]:
        """One: the model's own."""
        return (Stage("generate", self._run),)

    def _run(self, forward: Forward) -> Tensor | list[str]:
        """The loss of each answer that is learned; else the likelihood of each candidate, or a text."""
        batch = forward.prompts
        if batch.targets is not None:
            forward.logits = forward.generator.nll(batch.prompts)
            return forward.logits
        if self.candidates:
            forward.logits = forward.generator.likelihood(batch.prompts, self.candidates)
            return forward.logits
        forward.texts = forward.generator.generate(batch.prompts, LONGEST)
        return forward.texts

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean of the negative log-likelihoods [B], a scalar."""
        return logits.mean()

    def finish(self, logits: Tensor, ids: Sequence[str]) -> list[Prediction]:
        """The most likely candidate of each row of log-likelihoods [B, C], with the probabilities of all of them.

        Raises:
            VlbenchError: a likelihood that is not a finite number, naming the first such example.
        """
        logits = logits.detach().double().cpu()
        check_finite(logits, ids)
        return ranked(logits.softmax(dim=-1), self.candidates, ids)

    def extract(self, texts: Sequence[str], ids: Sequence[str]) -> list[Prediction]:
        """The answer in each generated text.

        Where the rule finds none the prediction has the status `unparsed`; its `text` keeps what was generated.
        """
        return [self._prediction(id_, text) for id_, text in zip(ids, texts, strict=True)]

    def _prediction(self, example_id: str, text: str) -> Prediction:
        answer = self.rule(text, self.labels)
        return Prediction(example_id, answer or "", status="unparsed" if answer is None else "ok", text=text)
