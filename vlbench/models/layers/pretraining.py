"""The base class of several models' pretraining: construction from a card, settings and the matching head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from torch import Tensor, nn

from vlbench.core.cards import ModelCard
from vlbench.core.pretraining import Gather, Option, alone
from vlbench.core.validate import Frozen, parse
from vlbench.data.resources import Resources
from vlbench.models.layers.convert import matching_score
from vlbench.models.layers.texts import WordPieceBackbone


class ConfiguredPretraining(nn.Module):
    """A backbone with its objectives and their options; a base class for `core.pretraining.Pretraining`.

    backbone_type, config_type: the classes of `backbone` and `config`, which subclasses set. matching: the head of
    image-text matching, with rows for no match and a match, if there is one.
    """

    divisible = True
    backbone_type: ClassVar[type[WordPieceBackbone]]
    config_type: ClassVar[type[Frozen]]
    matching: nn.Linear

    def __init__(self, backbone: WordPieceBackbone, config: Frozen) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources, options: Mapping[str, Option]) -> Self:
        """Build one of the card's sizes; `options` override the size's values.

        Raises VlbenchError: an unknown option or a value out of range.
        """
        values = {**card.sizes[size].pretraining, **options}
        config = parse(cls.config_type, values, f"pretraining of {card.name}-{size}")
        return cls(cls.backbone_type.from_card(card, size, resources), config)

    def head_weights(self) -> Mapping[str, Tensor]:
        """The matching head's row for a match, as a ranking head: weight [1, D], bias [1]."""
        return matching_score(self.matching.state_dict(prefix="matching."))

    def settings(self) -> Mapping[str, Option]:
        return self.config.model_dump()

    def after_step(self, gather: Gather = alone) -> None:
        """Nothing is updated after an optimizer step, unless a subclass says so."""
