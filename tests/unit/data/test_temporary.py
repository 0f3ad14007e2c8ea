"""What a killed process has left goes away when its folder is next written to; what a living one writes stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vlbench.data.cache import temporary
from vlbench.data.cache.folder import atomic_write
from vlbench.data.cache.lock import only_editor, only_writer
from vlbench.data.cache.temporary import sweep, temporary_path

KILLED = """
import os, sys
from pathlib import Path
from vlbench.data.cache.folder import atomic_file
from vlbench.data.cache.temporary import temporary_path
folder = Path(sys.argv[1])
store = temporary_path(folder / "store")
store.mkdir()
(store / "regions.bin").write_bytes(b"half")
with atomic_file(folder / "file") as file:
    file.write(b"half")
    file.flush()
    os._exit(9)
"""
MONTH = 30 * 24 * 3600


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is swept yet, as in a new process."""
    monkeypatch.setattr(temporary, "_swept", {})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_next_write_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)]).returncode == 9
    assert len(names(tmp_path)) == 2
    atomic_write(tmp_path / "another", "whole")
    assert names(tmp_path) == ["another"]


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    own = temporary_path(tmp_path / "file")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        living = tmp_path / own.name.replace(f"-{os.getpid()}-", f"-{other.pid}-")
        for path in (own, living):
            path.touch()
            os.utime(path, (0, 0))
        sweep(tmp_path)
        assert names(tmp_path) == sorted([own.name, living.name])
        other.communicate(b"\n")
    sweep(tmp_path)
    assert names(tmp_path) == [own.name]


@pytest.mark.parametrize("machine", ["0123abcd-", ""])
def test_a_process_of_another_machine_is_not_judged_by_its_number(tmp_path: Path, machine: str) -> None:
    folder = tmp_path / f".store.{machine}999999999-89abcdef"
    folder.mkdir()
    file = folder / "regions.bin"
    file.touch()
    os.utime(folder, (0, 0))
    sweep(tmp_path)
    assert file.exists()  # it is still being written
    os.utime(file, (time.time() - MONTH,) * 2)
    os.utime(folder, (0, 0))
    sweep(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", [".file.0123abcd", "file.0123abcd-1-89abcdef", ".file.1-89abcde", ".lock", ".x.y-1-z"])
def test_files_of_the_user_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    os.utime(tmp_path / name, (0, 0))
    sweep(tmp_path)
    assert names(tmp_path) == [name]


def test_a_folder_is_listed_once_per_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[Path] = []
    monkeypatch.setattr(temporary, "sweep", listed.append)
    for name in ("one", "two"):
        atomic_write(tmp_path / name, name)
    assert listed == [tmp_path]


EDITOR = """
import sys, time
from pathlib import Path
from vlbench.data.cache.folder import atomic_write
from vlbench.data.cache.lock import only_editor
path = Path(sys.argv[1])
for _ in range(20):
    with only_editor(path):
        text = path.read_text()
        time.sleep(0.001)
        atomic_write(path, text + sys.argv[2])
"""


def test_two_editors_of_a_file_lose_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page" / "README.md"
    atomic_write(page, "")
    editors = [subprocess.Popen([sys.executable, "-c", EDITOR, str(page), name]) for name in "ab"]
    assert [editor.wait() for editor in editors] == [0, 0]
    assert sorted(page.read_text()) == ["a"] * 20 + ["b"] * 20
    assert names(page.parent) == ["README.md"]  # no lock file beside a file of the user


def test_without_a_cache_a_file_is_edited_without_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VLBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with only_editor(tmp_path / "page"):
        atomic_write(tmp_path / "page", "written")
    assert (tmp_path / "page").read_text() == "written"


HOLDER = """
import sys
from pathlib import Path
from vlbench.data.cache.lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_process_that_waits_says_so_once(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", HOLDER, str(tmp_path / "world")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        said: list[str] = []

        def wait() -> None:
            said.append("waiting")
            holder.kill()

        with only_writer(tmp_path / "world", wait):
            assert said == ["waiting"]
    with only_writer(tmp_path / "world", wait):
        assert said == ["waiting"]
