"""The head of a learner: how it collates examples, and how it answers them from a model.

Shapes: B examples, P pairs of an image and a text, K pairs of one example, C answers, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from torch import Tensor, nn

from vlbench.core.backbone import Model
from vlbench.core.batch import Batch, Draw
from vlbench.core.columns import ids_and_queries, queries_at, take
from vlbench.core.examples import Example, Examples, Query
from vlbench.core.results import Prediction
from vlbench.heads.forward import Embedded, Forward, Stage
from vlbench.heads.inputs import Inputs, PairInputs


class Head(nn.Module, ABC):
    """The part of a learner from the features of a batch to answers; `forward` takes features with pooled [P, D].

    inputs: how queries reach the model. is_single_pass: whether `logits` without targets is one forward pass, which
    batch norms can be calibrated by.
    """

    inputs: Inputs = PairInputs()
    is_single_pass = True

    def collate(self, examples: Examples, rows: Sequence[int], model: Model, draw: Draw | None = None) -> Batch:
        """The batch of these rows of the examples; runs on the CPU, in workers.

        draw: of training, gives the batch targets; None leaves them out, so that no reference reaches the model.
        """
        if draw is None:
            return self.inputs.collate(*ids_and_queries(examples, rows), model, draw)
        block = take(examples, rows)
        queries = self._draw_queries(examples, draw)
        batch = self.inputs.collate(tuple(example.id for example in block), queries, model, draw)
        return replace(batch, targets=self.targets(block))

    def _draw_queries(self, examples: Examples, draw: Draw) -> list[Query]:
        """The queries of a forward pass, drawn for its whole optimizer step."""
        queries = self.queries(draw.block, examples, draw.query_rng())
        each = len(queries) // len(draw.block)
        return [queries[place * each + number] for place in draw.places for number in range(each)]

    def stages(self) -> tuple[Stage, ...]:
        """The stages of the forward pass in their order; the last one sets the logits."""
        return (*self.inputs.stages, Stage("head", self._apply_to_features))

    def _apply_to_features(self, forward: Forward) -> Tensor:
        forward.logits = self(forward.features)
        return forward.logits

    @abstractmethod
    def targets(self, examples: Sequence[Example[object]]) -> Tensor:
        """The targets of `loss`; references enter training nowhere else."""

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss over the batch, a scalar."""

    def logits(self, model: Model, batch: Batch) -> Tensor:
        """The logits of a batch, by all stages: [B, C] of a classifier, [P] of a cross-encoder."""
        return Forward(model, batch).run(self.stages()).logits

    def scores(self, model: Model, batch: Batch) -> Tensor:
        """The score of each answer [B, C], or of each pair [P, 1], that an answer is chosen by."""
        logits = self.logits(model, batch)
        return logits if logits.dim() == 2 else logits[:, None]

    def finish(self, logits: Tensor, ids: Sequence[str]) -> list[Prediction]:
        """One prediction per row of logits [B, C], the answers ranked by probability.

        Raises:
            VlbenchError: a logit that is not a finite number, naming the first such example.
            NotImplementedError: the head ranks pairs and answers no example by itself.
        """
        raise NotImplementedError(f"{type(self).__name__} ranks pairs")

    def queries(self, rows: Sequence[int], examples: Examples, rng: Random) -> list[Query]:
        """The queries of these rows in training, equally many for each row, its own first."""
        return queries_at(examples, rows)

    def own_first(self, logits: Tensor, rows: int) -> tuple[int, float]:
        """How many of so many rows score their own pair above all others, and how many would at random.

        Raises NotImplementedError of a classifier.
        """
        raise NotImplementedError(f"{type(self).__name__} ranks nothing")

    def choosing(self, candidates: tuple[str, ...]) -> Head:
        """The head itself; of a generative model one that chooses from these candidates."""
        return self

    def contrasted_images(self, examples: Examples) -> tuple[str, ...] | None:
        """The image of each example where the loss contrasts it with the other images of a step; else None."""
        return None

    def embed(self, model: Model, batch: Batch) -> Embedded:
        """The embeddings of a batch's pairs; NotImplementedError unless the head contrasts them."""
        raise NotImplementedError(f"{type(self).__name__} embeds nothing")


def count_own_first(scores: Tensor, own: Tensor) -> int:
    """How many rows of scores [B, K] have their own score [B] above all others."""
    return int(((scores >= own[:, None]).sum(dim=1) == 1).sum())
