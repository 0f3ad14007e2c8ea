"""Twelve commands started at once on one run folder, one data root and one cache lose nothing."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import pytest

from vlbench.cli.main import main
from vlbench.world.generate import WorldSize, ensure_world

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no fork")
RUN = ("run", "--model", "fake", "--steps", "1", "--limit", "8", "--controls", "none", "--quiet")
BEING_WRITTEN = "being written by another run"


@pytest.mark.parametrize("repeats", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_twelve_commands_at_once(
    repeats: int, tiny_world: Path, fake_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ensure_world.__kwdefaults__ or {}, "size", WorldSize(1, 1, 1, 1))
    monkeypatch.setattr("vlbench.data.cache.index.BIG", 0)
    monkeypatch.setattr("vlbench.data.cache.folder._UNSETTLED", -1)
    for repeat in range(repeats):
        place = tmp_path / str(repeat)
        place.mkdir()
        monkeypatch.setenv("VLBENCH_CACHE", str(place / "cache"))
        check(place, tiny_world, fake_run)


def check(place: Path, data: Path, finished: Path) -> None:
    """Start the commands in an empty folder, and check their exit codes and what they leave."""
    runs = place / "runs"
    places = ("--data-root", str(data), "--output-path", str(runs))
    tasks = ("nlvr2", "nlvr2", "nlvr2", "nlvr2", "snli_ve", "gqa")
    commands = [
        *((*RUN, "--task", task, *places) for task in tasks),
        *(("data", "world", "--quiet"),) * 2,
        *((verb, str(finished)) for verb in ("leaderboard", "show", "verify")),
        ("report", str(finished), "--html", str(place / "report.html")),
    ]
    for number, child in [(number, start(command, place / str(number))) for number, command in enumerate(commands)]:
        code, said = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), (place / str(number)).read_text("utf8")
        assert "Traceback" not in said, said
        assert code == 0 or (code == 2 and BEING_WRITTEN in said), f"{commands[number]}: exit {code}: {said}"
        assert code == 0 or commands[number] == commands[0], "others share no run folder"
    assert main(["verify", str(runs), "--json"]) == 0
    assert len(list(runs.rglob("run.json"))) == len(set(tasks))
    assert all('"status": "done"' in record.read_text("utf8") for record in runs.rglob("run.json"))
    hidden = [path for path in place.rglob(".*") if path.suffix != ".lock" and path.name != ".lock"]
    assert hidden == [], "a temporary file or folder was left"


def start(command: tuple[str, ...], log: Path) -> int:
    """The id of a forked process that runs the command and writes both streams to the log."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            stream = log.open("w", encoding="utf8")
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
            sys.stdout = sys.stderr = stream
            code = main([*command])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return child
