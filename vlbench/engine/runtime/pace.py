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
    """Wall-clock seconds of each batch; preparation counts. Of a gallery, examples are pictures and texts.

    processes: that worked at the same time, each on batches of its own.
    """

    batches: list[float] = field(default_factory=list)
    examples: int = 0
    processes: int = 1

    @classmethod
    def together(cls, timings: Sequence[Timing]) -> Timing:
        """Those of all processes as one."""
        batches = [seconds for timing in timings for seconds in timing.batches]
        return cls(batches, sum(timing.examples for timing in timings), len(timings))

    @property
    def examples_per_second(self) -> float:
        """Over all batches; 0 where nothing was predicted."""
        return self.examples * self.processes / sum(self.batches) if self.batches else 0.0
