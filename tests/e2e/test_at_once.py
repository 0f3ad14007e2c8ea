"""Twelve commands at once on one run folder, one data root and one cache: nothing is lost."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from vlbench.cli.main import main

QUICK = ("--model", "fake", "--steps", "2", "--limit", "16", "--controls", "none", "--quiet")


def call(arguments: tuple[str, ...], cache: Path, start: Connection, done: Connection) -> None:
    """Wait for the start, run the command, send its exit code and its messages."""
    os.environ["VLBENCH_CACHE"] = str(cache)
    start.recv()
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(arguments))
    done.send((code, err.getvalue()))


def at_once(commands: list[tuple[str, ...]], cache: Path) -> list[tuple[int, str]]:
    """The exit codes and messages of commands that begin at the same time, in processes forked from this one."""
    context = multiprocessing.get_context("fork")
    pipes = [(context.Pipe(), context.Pipe()) for _ in commands]
    children = [
        context.Process(target=call, args=(command, cache, starts[0], dones[1]))
        for command, (starts, dones) in zip(commands, pipes, strict=True)
    ]
    for child in children:
        child.start()
    for starts, _ in pipes:
        starts[1].send(None)
    ended = [dones[0].recv() for _, dones in pipes]
    for child in children:
        child.join()
    return ended


@pytest.mark.parametrize("repeats", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_twelve_commands_at_once(repeats: int, tiny_world: Path, tmp_path: Path) -> None:
    for repeat in range(repeats):
        runs, cache = tmp_path / f"runs-{repeat}", tmp_path / f"cache-{repeat}"
        place = ("--data-root", str(tiny_world), "--output-path", str(runs))
        assert main(["run", "--task", "snli_ve", *QUICK, *place]) == 0
        (finished,) = (str(path.parent) for path in runs.rglob("run.json"))
        same = ("run", "--task", "nlvr2", *QUICK, *place)
        commands = [
            *[same] * 4,
            ("run", "--task", "vqa2", *QUICK, *place),
            ("run", "--task", "coco_retrieval", *QUICK, *place),
            ("run", "--task", "snli_ve", *QUICK, *place),
            ("data", "check", "--task", "nlvr2", "--data-root", str(tiny_world)),
            ("leaderboard", str(runs), "--output", str(tmp_path / f"board-{repeat}.md")),
            ("report", finished, "--html", str(tmp_path / f"page-{repeat}.html")),
            ("show", finished),
            ("verify", finished),
        ]
        ended = at_once(commands, cache)
        codes = [code for code, _ in ended]
        # The same run at once: one does it; the others find it being written, or finished.
        assert set(codes[:4]) <= {0, 2} and 0 in codes[:4], ended[:4]
        assert all("is being written by another run" in err for code, err in ended[:4] if code == 2)
        assert codes[4:] == [0] * 8, [pair for pair in ended[4:] if pair[0]]
        records = [json.loads(path.read_text(encoding="utf8")) for path in runs.rglob("run.json")]
        assert sorted(record["task"]["name"] for record in records) == ["coco_retrieval", "nlvr2", "snli_ve", "vqa2"]
        assert {record["status"] for record in records} == {"done"}
        assert main(["verify", str(runs)]) == 0
        assert main(list(same)) == 0
        left = [path.name for folder in (runs, cache) for path in folder.rglob("*") if path.name.startswith(".")]
        assert {name for name in left if not name.endswith(".lock")} == set(), left
