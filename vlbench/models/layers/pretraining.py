"""What the pretraining modules of several models share: construction from a card, settings and the matching head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, Self

from torch import Tensor, nn

from vlbench.core.cards import ModelCard
from vlbench.core.pretraining import Gather, Option, alone
from vlbench.core.validate import Frozen, parse
from vlbench.data.resources import Resources
from vlbench.models.layers.convert import MATCHED


class BuiltFromCard(Protocol):
    """A backbone class that builds one of its card's sizes."""

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources) -> Self: ...


class ConfiguredPretraining(nn.Module):
    """A backbone with its objectives and their options; a base class for `core.pretraining.Pretraining`.

    backbone_type, config_type: the classes of `backbone` and `config`, which subclasses set.
    """

    divisible = True
    backbone_type: ClassVar[type[BuiltFromCard]]
    config_type: ClassVar[type[Frozen]]

    def __init__(self, backbone: BuiltFromCard, config: Frozen) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config

    @classmethod
    def from_card(cls, card: ModelCard, size: str, resources: Resources, options: Mapping[str, Option]) -> Self:
        """Build one of the card's sizes; `options` override the size's values.

        Raises:
            VlbenchError: an unknown option or a value out of range.
        """
        values = {**card.sizes[size].pretraining, **options}
        config = parse(cls.config_type, values, f"pretraining of {card.name}-{size}")
        return cls(cls.backbone_type.from_card(card, size, resources), config)

    def settings(self) -> Mapping[str, Option]:
        """The options of this training."""
        return self.config.model_dump()

    def after_step(self, gather: Gather = alone) -> None:
        """Nothing is updated after an optimizer step, unless a subclass says so."""


def matching_head_weights(matching: nn.Linear) -> Mapping[str, Tensor]:
    """The weights of a ranking head [1, D], [1]: the row for a match of a matching head with 2 rows."""
    row = slice(MATCHED, MATCHED + 1)
    bias = matching.weight.new_zeros(2) if matching.bias is None else matching.bias
    return {"head.score.weight": matching.weight[row], "head.score.bias": bias[row]}
