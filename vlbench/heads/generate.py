"""The answer that a generative model generates, or the most likely candidate; the head has no weights.

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
from vlbench.core.columns import ids_and_queries, take
from vlbench.core.errors import DataError
from vlbench.core.examples import Example, Examples, consensus_of
from vlbench.core.results import Prediction
from vlbench.data.text.extraction import RULES
from vlbench.heads.base import Head
from vlbench.heads.classify import finite_doubles, ranked
from vlbench.heads.forward import Forward, Stage
from vlbench.heads.inputs import PromptInputs

LONGEST = 20
"""The most tokens of an answer: answers of VQA and GQA have one to five words."""


class GenerateHead(Head):
    """The prompt of a task's card, and its rule that extracts an answer from the generated text.

    candidates: the most likely is chosen; if empty, the model generates a text. shots: shown with their answers before
    each example.
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
        """The answer that is learned; a DataError that names the example if it has none."""
        answer = consensus_of(example)
        if not answer:
            raise DataError(f"example {example.id!r} has no answer to learn from: give another --train-split")
        return answer

    def collate(self, examples: Examples, rows: Sequence[int], model: Model, draw: Draw | None = None) -> PromptBatch:
        """As `Head.collate`; with a draw the prompts hold the answers that are learned."""
        ids, queries = ids_and_queries(examples, rows)
        if draw is None:
            return self.inputs.collate(ids, queries, model, draw)
        block = take(examples, rows)
        batch = self.inputs.collate(ids, queries, model, draw, [self.target(example) for example in block])
        return PromptBatch(ids, batch.prompts, self.targets(block))

    def targets(self, examples: Sequence[Example[object]]) -> Tensor:
        """Empty: the answers that are learned are in the prompts."""
        return torch.empty(0)

    def stages(self) -> tuple[Stage, ...]:
        """One stage, which the model runs."""
        return (Stage("generate", self._generate),)

    def _generate(self, forward: Forward) -> Tensor | list[str]:
        """Set `logits` to the loss [B] of each learned answer, or the log-likelihoods [B, C]; else set `texts`."""
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
        """As `Head.finish`, of log-likelihoods [B, C] of the candidates."""
        return ranked(finite_doubles(logits, ids).softmax(dim=-1), self.candidates, ids)

    def extract(self, texts: Sequence[str], ids: Sequence[str]) -> list[Prediction]:
        """The answer in each generated text; where the rule finds none the prediction has the status `unparsed`."""
        answers = [self.rule(text, self.labels) for text in texts]
        return [
            Prediction(id_, answer or "", status="unparsed" if answer is None else "ok", text=text)
            for id_, answer, text in zip(ids, answers, texts, strict=True)
        ]
