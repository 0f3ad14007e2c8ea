"""What is known of one model so far, and what happens when it fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from vlbench.core.errors import VlbenchError
from vlbench.core.profile import ModelProfile, Scenario
from vlbench.profiling.build import BuiltModel
from vlbench.profiling.stages import StagedModel
from vlbench.profiling.timing import Durations
from vlbench.records.profiles import RawDuration


@dataclass
class ModelState:
    """The state of one model while it is profiled.

    profile: its row of the record so far. built, staged: None until it is built; without `staged` nothing more is
    measured. raw: the durations of every iteration, for the file of raw values.
    """

    profile: ModelProfile
    built: BuiltModel | None = None
    staged: StagedModel | None = None
    raw: list[RawDuration] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The model's name in tables."""
        return self.profile.name

    def update_profile(self, **fields: object) -> None:
        """Set fields of the profile."""
        self.profile = self.profile.model_copy(update=fields)

    def keep_durations(self, scenario: Scenario, durations: Durations, batch: int = 1, whole: str = "whole") -> None:
        """Keep raw values; whole: the stage name under which the whole iteration is kept."""
        named = {stage: values for stage, values in durations.stages.items() if stage}
        stages: dict[str, Sequence[float]] = {**named, whole: durations.whole}
        self.raw += [
            RawDuration(scenario, self.name, stage, batch, durations.rounds[number], number, value)
            for stage, values in stages.items()
            for number, value in enumerate(values)
        ]

    def fail(self, error: Exception) -> None:
        """Put the reason into the profile and measure the model no further."""
        reason = error.message if isinstance(error, VlbenchError) else f"{type(error).__name__}: {error}"
        self.update_profile(error=" ".join(reason.split())[:300])
        self.staged = None


@contextmanager
def record_failure(state: ModelState) -> Iterator[None]:
    """An exception inside the block fails this model; the others are profiled all the same."""
    try:
        yield
    except Exception as error:
        state.fail(error)
