"""A full disk and exhausted memory end a command with a sentence, and with space again the same command succeeds."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from vlbench.core.errors import ExitCode

MakeCase = Callable[[str], Any]


def test_PROBE(make_case: MakeCase, crash_points: ModuleType) -> None:
    import os, random

    memory = "MEM" in os.environ
    for command in os.environ["W5"].split(","):
        case = make_case(command)
        points = case.points(() if memory else crash_points.WRITES, ("before",))
        expected = case.left()
        log = open(f"/tmp/w5_{'mem' if memory else 'disk'}_{command}.log", "w", buffering=1)
        print(len(points), file=log)
        numbers = range(1, len(points) + 1)
        if memory:
            numbers = sorted(random.Random(0).sample(numbers, min(len(numbers), 40)))
        faults = ((points[n - 1], lambda n=n: (case.fill_memory if memory else case.fill_disk)(n)) for n in numbers)
        n = 0
        for line in crash_points.broken(case, faults, (9,) if memory else (5,), expected):
            print(line, file=log)
            n += 1
        print("DONE", command, len(points), "bad", n, file=log)
