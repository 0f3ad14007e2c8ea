"""Killed at any point, a command run again ends as if nothing had happened, and leaves no other file."""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random
from types import ModuleType
from typing import Any

import pytest

MakeCase = Callable[[str], Any]
COMMANDS = ("finetune", "eval", "rank", "world", "features", "pretrain", "leaderboard", "report", "gate", "fetch")


def test_sampled_points(make_case: MakeCase, crash_points: ModuleType) -> None:
    seed = int(os.environ.get("VLBENCH_CRASH_SEED", Random().randrange(10**6)))
    print(f"VLBENCH_CRASH_SEED={seed} chooses these points again")
    rng = Random(seed)
    for command in rng.sample(COMMANDS, 5):
        check(command, make_case, crash_points, lambda points: rng.sample(points, 2))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_point(command: str, make_case: MakeCase, crash_points: ModuleType) -> None:
    check(command, make_case, crash_points, lambda points: points)


def check(
    command: str, make_case: MakeCase, crash_points: ModuleType, choose: Callable[[list[str]], list[str]]
) -> None:
    case = make_case(command)
    points = case.points()
    assert points == list(dict.fromkeys(points))
    assert list(crash_points.lost(case, choose(points), case.left())) == []


def test_a_finished_run_is_cleaned_up_again(make_case: MakeCase) -> None:
    case = make_case("finetune")
    case.reset()
    assert case.run().code == 0
    expected = case.left()
    (run,) = (path.parent for path in case.folder.glob("runs/*/*/*/run.json"))
    for name in ("checkpoints/last", "checkpoints/best.new", "controls/blind/last.before", "shards/real"):
        (run / name).mkdir(parents=True)
    assert case.run().code == 0
    assert case.left() == expected
