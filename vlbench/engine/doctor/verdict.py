"""What a check of the doctor found, and all of them together."""

from __future__ import annotations

from math import isfinite
from typing import Literal

from torch import Tensor

from vlbench.core.record import LoadReport
from vlbench.core.validate import Frozen
from vlbench.engine.doctor.machine import Machine

Verdict = Literal["ok", "broken", "skipped"]


class Check(Frozen):
    """One check. found: a sentence for people.

    n: examples looked at. flips: of their answers, how many changed. largest: difference of two scores of one answer,
    in the unit of the scores (logits); None where there is none, or it is no number. tolerance: what it is compared to.
    """

    name: str
    verdict: Verdict
    found: str
    n: int | None = None
    flips: int | None = None
    largest: float | None = None
    tolerance: float | None = None


class Examination(Frozen):
    """All that was looked at. model, size, task: empty where only the machine was. healthy: no check is broken."""

    machine: Machine
    model: str = ""
    size: str = ""
    task: str = ""
    source: str = ""
    weights: LoadReport | None = None
    checks: tuple[Check, ...] = ()

    @property
    def broken(self) -> list[str]:
        """The names of the checks that found a fault."""
        return [check.name for check in self.checks if check.verdict == "broken"]


def judged(name: str, sound: bool, found: str, n: int, flips: int, largest: float | None, tolerance: float) -> Check:
    """A check of scores that could be compared; a difference that is no finite number is left out."""
    return Check(
        name=name,
        verdict="ok" if sound else "broken",
        found=found,
        n=n,
        flips=flips,
        largest=largest if largest is not None and isfinite(largest) else None,
        tolerance=tolerance,
    )


def compared(name: str, plain: Tensor, other: Tensor, tolerance: float, what: str) -> Check:
    """Whether scores [n, C] are those of the plain way of asking, but for the tolerance.

    Args:
        name: of the check.
        plain: scores that all ways of asking are compared with.
        other: scores of the same examples, asked in another way.
        tolerance: the largest difference allowed; a score that is not a number is never.
        what: the other way, in words.
    """
    largest = float((plain - other).abs().max())
    sound = largest <= tolerance  # False of NaN
    found = f"{what}: scores {'agree' if sound else 'differ' if isfinite(largest) else 'are no finite numbers'}"
    flips = int((plain.argmax(dim=1) != other.argmax(dim=1)).sum())
    return judged(name, sound, found, len(plain), flips, largest, tolerance)
