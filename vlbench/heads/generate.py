"""Answers in a model's own words, or the candidate it finds likeliest; there is nothing to train.

Shapes: B examples, I pictures per example, P = B * I pairs, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vlbench.core.backbone import Generator, Textual, Visual
from vlbench.core.results import Prediction
from vlbench.data.extraction import RULES
from vlbench.heads.labels import check_finite, ranked

LONGEST = 20
"""Tokens of an answer: VQA's and GQA's have one to five words."""


class GenerateHead:
    """rule: the task card's, from what was written to an answer. candidates: chosen from by likelihood; empty: written.

    images: pictures per example, which the model sees in one prompt.
    """

    def __init__(self, rule: str, labels: tuple[str, ...], candidates: tuple[str, ...], images: int) -> None:
        self.rule, self.labels, self.candidates, self.images = RULES[rule], labels, candidates, images

    def answer(self, backbone: Generator, seen: Visual, read: Textual, ids: Sequence[str]) -> list[Prediction]:
        """One prediction per example from what was seen and read of its P pairs, example by example.

        What the rule finds no answer in has the status `unparsed`; `text` keeps what was written.

        Raises:
            VlbenchError: a likelihood that is not a finite number, naming the first such example.
        """
        together = Visual(_side_by_side(seen.states, self.images), _side_by_side(seen.mask, self.images))
        asked = Textual(read.states[:: self.images], read.mask[:: self.images])
        if self.candidates:
            likelihoods = backbone.likelihood(together, asked, self.candidates).double().cpu()
            check_finite(likelihoods, ids)
            return ranked(likelihoods.softmax(dim=-1), self.candidates, ids)
        written = backbone.generate(together, asked, LONGEST)
        return [self._prediction(id_, text) for id_, text in zip(ids, written, strict=True)]

    def _prediction(self, example_id: str, written: str) -> Prediction:
        answer = self.rule(written, self.labels)
        return Prediction(example_id, answer or "", status="unparsed" if answer is None else "ok", text=written)


def _side_by_side(tokens: Tensor, images: int) -> Tensor:
    """[B * I, R, ...] -> [B, I * R, ...]."""
    return tokens.reshape(len(tokens) // images, images * tokens.shape[1], *tokens.shape[2:])
