"""How answering proceeds, for predictions and rankings alike, and how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from accelerate import Accelerator

from vlbench.core.progress import Progress
from vlbench.engine.runtime.interrupt import Interrupt
from vlbench.engine.runtime.ranks import Ranks


@dataclass(frozen=True)
class Pace:
    """batch_size: examples, or pairs of a gallery, per forward. workers: processes that prepare inputs. stops: whether
    it may end in between when asked to; not where training goes on after it, which all processes must reach.
    """

    accelerator: Accelerator
    batch_size: int
    workers: int
    progress: Progress
    interrupt: Interrupt
    what: str
    stops: bool = True

    @property
    def ranks(self) -> Ranks:
        """This process's place among those that share the work."""
        return Ranks.of(self.accelerator)

    def step(self, done: int, total: int) -> None:
        """Show how far it is, and stop here if asked to.

        Raises:
            Interrupted: a signal has come.
        """
        self.progress.step(self.what, done, total)
        self.check()

    def check(self) -> None:
        """Stop here if asked to.

        Raises:
            Interrupted: a signal has come.
        """
        if self.stops or self.ranks.size == 1:
            self.interrupt.check()


@dataclass
class Timing:
    """Wall-clock seconds of each batch of one process; preparation counts.

    examples: those that this process answered, no other process counting them too. Of a gallery, pictures and texts.
    """

    batches: list[float] = field(default_factory=list)
    examples: int = 0


def examples_per_second(timings: Sequence[Timing]) -> float:
    """Of processes that shared the work: what all answered over the seconds of the one that was busy longest.

    0 where nothing was answered.
    """
    longest = max((sum(timing.batches) for timing in timings), default=0.0)
    return sum(timing.examples for timing in timings) / longest if longest else 0.0
