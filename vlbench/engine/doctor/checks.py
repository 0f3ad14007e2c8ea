"""The results of the doctor's checks, and all of them together."""

from __future__ import annotations

from math import isfinite
from typing import Literal

from torch import Tensor

from vlbench.core.record import LoadReport
from vlbench.core.validate import Frozen
from vlbench.engine.doctor.machine import MachineReport

CheckStatus = Literal["ok", "broken", "skipped"]


class Check(Frozen):
    """The result of one check. verdict: its status. found: the result as a sentence.

    n: examples compared. flips: how many of their answers changed. largest: the largest difference of two scores of one
    answer, in the unit of the scores (logits); None if there is none, or it is not finite. tolerance: its limit.
    """

    name: str
    verdict: CheckStatus
    found: str
    n: int | None = None
    flips: int | None = None
    largest: float | None = None
    tolerance: float | None = None


class Examination(Frozen):
    """The results of all checks. model, size, task: empty if only the machine was examined."""

    machine: MachineReport
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


def make_check(
    name: str, passed: bool, found: str, n: int, flips: int, largest: float | None, tolerance: float
) -> Check:
    """The result of a comparison of scores; a largest difference that is not finite is left out."""
    verdict: CheckStatus = "ok" if passed else "broken"
    finite = largest if largest is not None and isfinite(largest) else None
    return Check(name=name, verdict=verdict, found=found, n=n, flips=flips, largest=finite, tolerance=tolerance)


def compare_scores(name: str, reference: Tensor, other: Tensor, tolerance: float, condition: str) -> Check:
    """Check that the scores [n, C] of the same examples under another condition agree with the reference.

    tolerance: the largest difference allowed; NaN always fails. condition: the other condition, as text.
    """
    largest = float((reference - other).abs().max())
    passed = largest <= tolerance  # False for NaN
    found = f"{condition}: scores {'agree' if passed else 'differ' if isfinite(largest) else 'are not finite'}"
    flips = int((reference.argmax(dim=1) != other.argmax(dim=1)).sum())
    return make_check(name, passed, found, len(reference), flips, largest, tolerance)
