"""Answers in a model's own words, or the candidate it finds likeliest; it has no weights of its own.

Shapes: B examples, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from vlbench.core.backbone import Generator, Tensors
from vlbench.core.cards import TaskCard
from vlbench.core.errors import DataError
from vlbench.core.examples import Answered, Example, Prompt, Query, Shot
from vlbench.core.results import Prediction
from vlbench.data.text.extraction import RULES
from vlbench.heads.labels import check_finite, ranked

LONGEST = 20
"""Tokens of an answer: VQA's and GQA's have one to five words."""


class GenerateHead(nn.Module):
    """The card's prompt, and its rule from what was written to an answer.

    candidates: chosen from by likelihood; empty: the model writes. shots: shown with their answers before each example.
    """

    def __init__(self, card: TaskCard, candidates: tuple[str, ...] = (), shots: Sequence[Example[Any]] = ()) -> None:
        super().__init__()
        self.template, self.rule, self.labels = card.prompt, RULES[card.extraction], card.labels
        self.candidates = candidates
        self.shots = tuple(Shot(self._worded(shot.query), self.target(shot)) for shot in shots)

    def prompt(self, query: Query) -> Prompt:
        """What a query is asked by."""
        return Prompt(self._worded(query), self.shots)

    def target(self, example: Example[Any]) -> str:
        """The answer that is learned; the only door through which references enter training.

        Raises:
            DataError: there is none, naming the example.
        """
        answer = example.reference.consensus if isinstance(example.reference, Answered) else ""
        if not answer:
            raise DataError(f"example {example.id!r} has no answer to learn from: give another --train-split")
        return answer

    def answer(self, model: Generator, prompts: Tensors, ids: Sequence[str]) -> list[Prediction]:
        """One prediction per prompt.

        What the rule finds no answer in has the status `unparsed`; `text` keeps what was written.

        Raises:
            VlbenchError: a likelihood that is not a finite number, naming the first such example.
        """
        if self.candidates:
            likelihoods = model.likelihood(prompts, self.candidates).double().cpu()
            check_finite(likelihoods, ids)
            return ranked(likelihoods.softmax(dim=-1), self.candidates, ids)
        written = model.generate(prompts, LONGEST)
        return [self._prediction(id_, text) for id_, text in zip(ids, written, strict=True)]

    def _prediction(self, example_id: str, written: str) -> Prediction:
        answer = self.rule(written, self.labels)
        return Prediction(example_id, answer or "", status="unparsed" if answer is None else "ok", text=written)

    def _worded(self, query: Query) -> Query:
        return replace(query, text=self.template.replace("{text}", query.text))
