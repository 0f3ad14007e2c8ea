"""What is known of one model so far, and what becomes of it when it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vlbench.core.errors import VlbenchError
from vlbench.core.profile import ModelProfile
from vlbench.profiling.build import Opened
from vlbench.profiling.subject import Subject


@dataclass
class Found:
    """One model on its way; without a subject there is nothing more to measure of it."""

    profile: ModelProfile
    opened: Opened | None = None
    subject: Subject | None = None

    @property
    def name(self) -> str:
        """As tables call it."""
        return self.profile.name

    def add(self, **parts: object) -> None:
        """Put more into the profile."""
        self.profile = self.profile.model_copy(update=parts)

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
