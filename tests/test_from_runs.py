"""The README's way from runs to a decision: its commands, one after the other, over quick runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
QUICK = ("--steps", "2", "--batch-size", "8", "--select-on", "none", "--size", "tiny", "--quiet")


def commands() -> list[list[str]]:
    """As a shell would cut them, patterns of paths aside."""
    section = README.read_text(encoding="utf8").partition("## From runs to a decision")[2]
    return [shlex.split(line, comments=True) for line in section.split("```")[1].strip().splitlines()]


def test_each_command_does_its_part(
    vlbench: Any, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLBENCH_DATA", str(tiny_world))
    run, board, page, comparison, baseline, gate = commands()
    assert vlbench(*run[1:], *QUICK).code == 0
    assert len(list(Path("runs").glob("*/*/*/run.json"))) == 6
    for command in (board, page, baseline):
        done = vlbench(*command[1:])
        assert done.code == 0, done.err
    assert "vilt-tiny" in Path("board.md").read_text() and "<svg" in Path("fronts.svg").read_text()
    assert "vilt-tiny" in Path("index.html").read_text()
    paths = [
        path for word in comparison[1:] for path in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
    ]
    compared = vlbench(*paths)
    assert compared.code == 0 and "3 seeds" in compared.out, compared.err
    judged = vlbench(*gate[1:])
    assert judged.code == 4, "so few examples cannot tell a drop of half a point"
    assert "50 or more are needed" in judged.out
