"""What is known of one model so far, and what becomes of it when it fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from vlbench.core.errors import VlbenchError
from vlbench.core.profile import ModelProfile, Scenario
from vlbench.profiling.build import Opened
from vlbench.profiling.stages import Subject
from vlbench.profiling.timing import Durations
from vlbench.records.profiles import RawDuration


@dataclass
class Found:
    """One model on its way; without a subject there is nothing more to measure of it."""

    profile: ModelProfile
    opened: Opened | None = None
    subject: Subject | None = None
    raw: list[RawDuration] = field(default_factory=list)

    @property
    def name(self) -> str:
        """As tables call it."""
        return self.profile.name

    def add(self, **parts: object) -> None:
        """Put more into the profile."""
        self.profile = self.profile.model_copy(update=parts)

    def keep(self, scenario: Scenario, durations: Durations, batch: int = 1, whole: str = "whole") -> None:
        """Keep raw values; whole: what all stages together are called."""
        named = {stage: values for stage, values in durations.stages.items() if stage}
        stages: dict[str, Sequence[float]] = {**named, whole: durations.whole}
        self.raw += [
            RawDuration(scenario, self.name, stage, batch, durations.rounds[number], number, value)
            for stage, values in stages.items()
            for number, value in enumerate(values)
        ]

    def fail(self, error: Exception) -> None:
        """End it: its row says why."""
        reason = error.message if isinstance(error, VlbenchError) else f"{type(error).__name__}: {error}"
        self.add(error=" ".join(reason.split())[:300])
        self.subject = None


@contextmanager
def caught(found: Found) -> Iterator[None]:
    """Whatever a model raises ends that model alone."""
    try:
        yield
    except Exception as error:
        found.fail(error)
