"""How examples become a batch: as pairs of images and texts, or as prompts.

Shapes: B examples, I images per query, P pairs, N distinct (image, slot), M distinct texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias, cast

import torch

from vlbench.core.backbone import Augmenting, Backbone, Model, MultiScale, Tensors
from vlbench.core.batch import Draw, PairBatch, PromptBatch
from vlbench.core.cards import ScaleRange
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import ImageRef, Prompt, Query, Shot
from vlbench.heads.forward import PAIRS, POOLED_PAIRS, PROMPTS, Stage, generator_of


@dataclass(frozen=True)
class PairInputs:
    """Pairs of the images and the text of each query.

    shares: whether equal images and texts are encoded once. pooled_only: whether the head reads no features but
    `pooled`, so that the model need not compute others.
    """

    shares: bool = True
    pooled_only: bool = False

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the forward pass, up to features."""
        return POOLED_PAIRS if self.pooled_only else PAIRS

    def unshared(self) -> PairInputs:
        """The same, encoding equal images and texts each time, so that a forward pass costs as with different ones."""
        return replace(self, shares=False)

    def collate(self, ids: tuple[str, ...], queries: Sequence[Query], model: Model, draw: Draw | None) -> PairBatch:
        """The batch of these queries, without targets; each distinct image and text is prepared once."""
        backbone = cast(Backbone, model)
        images: dict[tuple[str, int, int], int] = {}
        texts: dict[tuple[str, int], int] = {}
        refs, image_rows, text_rows = list[ImageRef](), list[int](), list[int]()
        for number, query in enumerate(queries):
            copy = 0 if self.shares else number
            text_row = texts.setdefault((query.text, copy), len(texts))
            for slot, ref in enumerate(query.images):
                key = (ref.key, slot, copy)
                if key not in images:
                    images[key] = len(images)
                    refs.append(ref)
                image_rows.append(images[key])
                text_rows.append(text_row)
        return PairBatch(
            ids=ids,
            images=_prepare_images(backbone, refs, draw),
            slots=torch.tensor([slot for _, slot, _ in images]),
            texts=backbone.prepare_texts([text for text, _ in texts]),
            image_rows=torch.tensor(image_rows),
            text_rows=torch.tensor(text_rows),
        )


@dataclass(frozen=True)
class PromptInputs:
    """The prompt of each query.

    template: of the task's card; `{text}` stands for the query's text. shots: shown with their answers before each
    query. stages: of the forward pass, up to features.
    """

    template: str
    shots: tuple[Shot, ...] = ()
    stages: ClassVar[tuple[Stage, ...]] = PROMPTS

    def with_shots(self, shots: Sequence[tuple[Query, str]]) -> PromptInputs:
        """The same, with queries and their answers as shots."""
        return PromptInputs(self.template, tuple(Shot(self._fill_template(query), answer) for query, answer in shots))

    def unshared(self) -> PromptInputs:
        """The same: prompts are never shared."""
        return self

    def prompt(self, query: Query) -> Prompt:
        """The prompt of a query."""
        return Prompt(self._fill_template(query), self.shots)

    def collate(
        self,
        ids: tuple[str, ...],
        queries: Sequence[Query],
        model: Model,
        draw: Draw | None,
        answers: Sequence[str] | None = None,
    ) -> PromptBatch:
        """The batch of these queries, without targets. answers: those that are learned."""
        prompts = [self.prompt(query) for query in queries]
        return PromptBatch(ids, generator_of(model).prepare_prompts(prompts, answers))

    def _fill_template(self, query: Query) -> Query:
        return replace(query, text=self.template.replace("{text}", query.text))


Inputs: TypeAlias = PairInputs | PromptInputs
"""How the queries of a block of examples reach the model, and the stages that make features of them."""


def _prepare_images(backbone: Backbone, refs: Sequence[ImageRef], draw: Draw | None) -> Tensors:
    if draw is not None and draw.augment and isinstance(backbone, Augmenting):
        return backbone.augmented(refs, draw.image_rng())
    if draw is not None and draw.scales is not None and isinstance(backbone, MultiScale):
        return backbone.rescaled(refs, draw.image_rng(), draw.scales)
    return backbone.prepare_images(refs)


def check_changes(model: object, augment: bool, scales: ScaleRange | None) -> None:
    """Check that a model can change training images as a recipe asks.

    Raises:
        VlbenchError: it cannot augment them, or not resize them at random, or both are asked for at once.
    """
    name = type(model).__name__
    if augment and not isinstance(model, Augmenting):
        raise VlbenchError(
            f"train.augment is for models that can change the pixels of their images, and {name} cannot: set it to none"
        )
    if scales is not None and not isinstance(model, MultiScale):
        raise VlbenchError(
            f"train.short_side {[*scales[:2]]} is for models that take images of any size (soho), and {name} does not: "
            f"leave it out"
        )
    if augment and scales is not None:
        raise VlbenchError("train.augment and train.short_side do not go together: leave one of them out")
