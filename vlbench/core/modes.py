"""The modes of a run, and what each of them trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Mode = Literal["finetune", "probe", "eval", "zero-shot"]


@dataclass(frozen=True)
class ModeFacts:
    """What holds for a mode.

    letter: in tables of capabilities. trains: whether weights are trained on the task at all. trains_backbone: whether
    those of the backbone are. loads_head: whether the head comes with the weights. untrained: whether the model was
    never trained on the task.
    """

    letter: str
    trains: bool = False
    trains_backbone: bool = False
    loads_head: bool = False
    untrained: bool = False

    @property
    def trains_head_only(self) -> bool:
        return self.trains and not self.trains_backbone


MODES: Mapping[Mode, ModeFacts] = {
    "finetune": ModeFacts("F", trains=True, trains_backbone=True),
    "probe": ModeFacts("P", trains=True),
    "eval": ModeFacts("E", loads_head=True),
    "zero-shot": ModeFacts("Z", untrained=True),
}
