"""Runs, caches and reports follow the umask."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from vlbench.cli.main import main
from vlbench.world.generate import WorldSize, ensure_world

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no umask, no uid")
SMALL = WorldSize(1, 1, 1, 1)
RUN = ("run", "--task", "snli_ve", "--controls", "none", "--limit", "8", "--steps", "1", "--batch-size", "8", "--quiet")
FINETUNING = (*RUN, "--model", "vilt", "--checkpoint", "none", "--save-every", "1", "--cache-images", "1")


@pytest.mark.parametrize("umask", [0o002, pytest.param(0o077, marks=pytest.mark.slow)])
def test_all_files_follow_the_umask(
    umask: int, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "place"
    monkeypatch.setenv("VLBENCH_CACHE", str(place / "cache"))
    monkeypatch.setattr("vlbench.data.cache.folder._UNSETTLED", -1)
    monkeypatch.setattr("vlbench.data.cache.index.BIG", 0)
    monkeypatch.setattr("vlbench.engine.execute.drop_resume_state", lambda run: None)
    before = os.umask(umask)
    try:
        place.mkdir()
        ensure_world(place / "cache", size=SMALL)
        data, runs = ("--data-root", str(tiny_world)), ("--output-path", str(place / "runs"))
        assert main([*FINETUNING, *data, *runs]) == 0
        run = capsys.readouterr().out.splitlines()[-1]
        assert main(["report", run]) == 0
        assert main(["leaderboard", str(place / "runs"), "--output", str(place / "board.html")]) == 0
        assert main(["pretrain", "--model", "cvlp", "--steps", "1", "--batch-size", "8", "--quiet", *data, *runs]) == 0
        features = ["data", "features", "--task", "snli_ve", "--split", "dev", "--quiet"]
        assert main([*features, *data, "--output", str(place / "features")]) == 0
        assert main(["new", "task", "drawn", "--into", str(place)]) == 0
    finally:
        os.umask(before)
    found = [place, *place.rglob("*")]
    assert {path.suffix for path in found} >= {".json", ".safetensors", ".pt", ".lock", ".npy", ".arrow", ".tsv"}
    wrong = [f"{path} {stat.filemode(path.stat().st_mode)}" for path in found if not follows(path, umask)]
    assert not wrong, "\n".join(wrong)


def follows(path: Path, umask: int) -> bool:
    """Whether a file or folder has the permissions that a program gives it which does not think of them."""
    return stat.S_IMODE(path.stat().st_mode) & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask
