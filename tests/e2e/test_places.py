"""Runs, caches and reports follow the umask; users share a cache; work goes on where a place cannot be written."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from vlbench.cli.main import main
from vlbench.world.generate import WorldSize, ensure_world

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no umask, no uid")
as_root = pytest.mark.skipif(sys.platform == "win32" or os.getuid() != 0, reason="only root can become another user")
SMALL = WorldSize(1, 1, 1, 1)
GROUP = 54321
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


def as_user(user: int, umask: int, work: Callable[[], int]) -> int:
    """The exit code of work that a process of that user does, in the group `GROUP`, with no home and no name."""
    child = multiprocessing.get_context("fork").Process(target=_become, args=(user, umask, work))
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def _become(user: int, umask: int, work: Callable[[], int]) -> None:
    os.umask(umask)
    os.setgroups([])
    os.setgid(GROUP)
    os.setuid(user)
    for name in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME"):
        os.environ.pop(name, None)
    code = 99
    try:
        code = work()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@pytest.fixture
def public() -> Iterator[Path]:
    """An empty folder that every user can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def public_world(tiny_world: Path) -> Iterator[Path]:
    """A data root that every user can read and none but root can write."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "world"
        shutil.copytree(tiny_world, root)
        for path in (Path(folder), root, *root.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield root


@pytest.fixture(scope="module")
def imported(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Imports what the commands import, since other users may not be able to read the interpreter's library."""
    folder = tmp_path_factory.mktemp("imported")
    places = ("--data-root", str(tiny_world), "--output-path", str(folder / "runs"))
    ensure_world(folder, size=SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlbench.data.cache.index.BIG", 0)
        patch.setenv("VLBENCH_CACHE", str(folder / "cache"))
        for command in (FINETUNING, (*RUN, "--model", "cvlp", "--checkpoint", "none"), (*RUN, "--model", "fake")):
            assert main([*command, "--verify-data", *places]) == 0
        run = str(next(folder.rglob("fake*/**/run.json")).parent)
        for reading in ("report", "show", "verify", "leaderboard"):
            assert main([reading, run]) == 0
        assert main(["compare", run, run]) == 0
        assert main(["report", "~nobody/runs"]) == 2


@as_root
@pytest.mark.usefixtures("imported")
def test_two_users_share_a_cache(public: Path, public_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks, notes, the index, resized images, regions and a world that one user made serve the rest of the group."""
    shared = public / "shared"
    shared.mkdir()
    os.chown(shared, 0, GROUP)
    shared.chmod(0o2775)
    monkeypatch.setenv("VLBENCH_CACHE", str(shared / "cache"))
    monkeypatch.setattr("vlbench.data.cache.folder._UNSETTLED", -1)
    monkeypatch.setattr("vlbench.data.cache.index.BIG", 0)
    places = ("--data-root", str(public_world), "--output-path", str(shared / "runs"))

    cvlp = (*RUN, "--model", "cvlp", "--checkpoint", "none")

    def work() -> int:
        ensure_world(shared / "cache", seed=1, size=SMALL)
        return max(main([*FINETUNING, "--verify-data", *places]), main([*cvlp, *places]))

    assert as_user(1001, 0o002, work) == 0
    made = {path: path.stat().st_mtime_ns for path in (shared / "cache").rglob("*.arrow")}
    assert made
    for path in (shared / "cache" / "world").glob("v*"):
        path.joinpath("world.json").unlink()  # as if the first user had been killed
    assert as_user(1002, 0o002, work) == 0
    assert {path: path.stat().st_mtime_ns for path in (shared / "cache").rglob("*.arrow")} == made
    assert as_user(1002, 0o002, lambda: main([*FINETUNING, "--no-resume", *places])) == 0
    assert as_user(1002, 0o002, lambda: main([*cvlp, "--task", "nlvr2", *places])) == 0  # adds to the region stores
    owners = {path.stat().st_uid for path in shared.rglob("*")}
    assert owners == {1001, 1002} and {path.stat().st_gid for path in shared.rglob("*")} == {GROUP}


@as_root
@pytest.mark.usefixtures("imported")
def test_without_a_home_folder(
    public: Path, public_world: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Runs need no cache; what needs one names the variable. Nothing is written to a folder of the name `~`."""
    out = public / "out"
    out.mkdir()
    out.chmod(0o777)
    monkeypatch.delenv("VLBENCH_CACHE")
    monkeypatch.chdir(out)
    monkeypatch.setattr("vlbench.data.cache.index.BIG", 0)
    places = ("--data-root", str(public_world), "--output-path", "runs")
    assert as_user(4321, 0o022, lambda: main([*FINETUNING, "--verify-data", *places])) == 0
    said = capfd.readouterr()
    run = said.out.splitlines()[-1]
    assert as_user(4321, 0o022, lambda: main(["report", run])) == 0
    capfd.readouterr()
    needs_cache = (("data", "world", "--quiet"), (*RUN, "--model", "cvlp", "--checkpoint", "none", *places))
    for command in needs_cache:
        assert as_user(4321, 0o022, partial(main, [*command])) == 5, command
        assert "no home folder to cache data in: set VLBENCH_CACHE" in capfd.readouterr().err
    assert as_user(4321, 0o022, lambda: main(["report", "~/runs"])) == 2
    assert "give the path without ~" in capfd.readouterr().err
    assert {path.name for path in out.iterdir()} == {"runs"}


@as_root
@pytest.mark.usefixtures("imported")
def test_a_finished_run_of_another_user_is_found_and_read(
    public: Path, public_world: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLBENCH_CACHE", str(public / "cache"))
    command = [*RUN, "--model", "fake", "--data-root", str(public_world), "--output-path", str(public / "runs")]
    assert main(command) == 0
    run = capfd.readouterr().out.splitlines()[-1]
    before = sorted(path for path in public.rglob("*"))
    assert as_user(4321, 0o022, lambda: main(command)) == 0
    assert capfd.readouterr().out.splitlines()[-1] == run
    readings = (["show", run], ["verify", run], ["leaderboard", str(public / "runs")], ["compare", run, run])
    for reading in readings:
        assert as_user(4321, 0o022, partial(main, reading)) == 0, reading
    assert as_user(4321, 0o022, lambda: main(["report", run])) == 5
    assert "cannot write" in capfd.readouterr().err
    assert as_user(4321, 0o022, lambda: main(["data", "world", "--quiet"])) == 5
    assert "set VLBENCH_CACHE to a folder that can be written" in capfd.readouterr().err
    assert as_user(4321, 0o022, lambda: main([*command, "--no-resume"])) == 5
    assert sorted(path for path in public.rglob("*")) == before
    with tempfile.TemporaryDirectory() as elsewhere:
        Path(elsewhere).chmod(0o777)
        assert as_user(4321, 0o022, lambda: main(["report", run, "--html", f"{elsewhere}/report.html"])) == 0
