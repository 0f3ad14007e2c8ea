from __future__ import annotations

from vlbench.report.gate.baseline import Subject
from vlbench.report.gate.text import gate_table
from vlbench.report.gate.verdict import Verdict

OF = Subject(task="nlvr2", split="dev", data="real data", protocol="eval", model="cvlp-base")


def cells(verdict: Verdict) -> list[str]:
    row = gate_table([verdict]).splitlines()[-1]
    return [part.strip() for part in row.split("|")[1:-1]]


def test_no_drop_has_no_minus() -> None:
    assert cells(Verdict(OF, "trained", "pass", "as good", -0.0, -0.004, 0.5))[3:5] == ["+0.00", "[+0.00, +0.50]"]
    assert cells(Verdict(OF, "trained", "missing", "no run"))[3:5] == ["-", "-"]
