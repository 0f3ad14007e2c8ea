"""Files come whole or not at all; hashes are remembered only as long as the file is the same."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlbench.core.errors import DataError, ExitCode
from vlbench.data.cache.folder import atomic_file, atomic_write, cache_folder, file_sha256


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_writes_text_and_bytes_and_makes_folders(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a" / "b" / "text", "Grüße")
    atomic_write(tmp_path / "bytes", b"\0\1")
    atomic_write(tmp_path / "bytes", b"\2")
    assert (tmp_path / "a" / "b" / "text").read_bytes() == "Grüße".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\2"
    assert names(tmp_path) == ["a", "bytes"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_a_file_where_a_folder_should_be_and_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "run.json", tmp_path / "folder"):
        with pytest.raises(DataError, match=f"cannot write {path}") as caught:
            atomic_write(path, "new")
        assert caught.value.exit_code == ExitCode.DATA == 5
    assert names(tmp_path) == ["file", "folder"] and names(tmp_path / "folder") == []


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_a_full_disk(tmp_path: Path) -> None:
    code = (
        "import resource, sys, pathlib\n"
        "from vlbench.core.errors import DataError\n"
        "from vlbench.data.cache.folder import atomic_write\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: atomic_write(pathlib.Path(sys.argv[1]), b'x' * 5000)\n"
        "except DataError as error: print(error.message)\n"
    )
    path = tmp_path / "file"
    path.write_text("old")
    printed = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True).stdout
    assert printed.startswith(f"cannot write {path}") and "free space" in printed
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VLBENCH_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("VLBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / "xdg" / "vlbench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "vlbench"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "vlbench"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "vlbench"
    assert names(tmp_path) == []


ONE, TWO = hashlib.sha256(b"one").hexdigest(), hashlib.sha256(b"two").hexdigest()


@pytest.fixture
def remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that remembers files however young they are."""
    monkeypatch.setattr("vlbench.data.cache.folder._UNSETTLED", -1)


def written(path: Path, content: bytes) -> None:
    """Change a file and set its time of modification back; waits until the clock of the file system has moved."""
    seen = path.stat()
    while path.stat().st_ctime_ns == seen.st_ctime_ns:
        path.write_bytes(content)
        os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


@pytest.mark.usefixtures("remembers")
def test_hashes_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    path, cache = tmp_path / "file", tmp_path / "cache"
    path.write_bytes(b"one")
    assert file_sha256(path, cache) == ONE
    (note,) = (cache / "sha256").iterdir()
    note.write_text("0" * 64)
    assert file_sha256(path, cache) == "0" * 64
    assert file_sha256(path, cache, again=True) == ONE and note.read_text() == ONE
    os.utime(path, ns=(0, 1))
    assert file_sha256(path, cache) == ONE and len(list((cache / "sha256").iterdir())) == 2
    with pytest.raises(DataError, match="cannot read"):
        file_sha256(tmp_path / "absent", cache)


@pytest.mark.skipif(sys.platform == "win32", reason="st_ctime is when the file was made")
@pytest.mark.usefixtures("remembers")
def test_a_change_of_equal_size_is_found_though_its_time_was_set_back(tmp_path: Path) -> None:
    path, cache = tmp_path / "file", tmp_path / "cache"
    path.write_bytes(b"one")
    before = path.stat()
    assert file_sha256(path, cache) == ONE
    written(path, b"two")
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert file_sha256(path, cache) == TWO


@pytest.mark.usefixtures("remembers")
def test_another_file_in_its_place_is_found(tmp_path: Path) -> None:
    path, other, cache = tmp_path / "file", tmp_path / "other", tmp_path / "cache"
    for file, content in ((path, b"one"), (other, b"two")):
        file.write_bytes(content)
        os.utime(file, ns=(5, 5))
    assert file_sha256(path, cache) == ONE
    other.replace(path)
    assert file_sha256(path, cache) == TWO


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path) -> None:
    """A second change within the same tick of the file system's clock would leave all times as they are."""
    path, cache = tmp_path / "file", tmp_path / "cache"
    path.write_bytes(b"one")
    assert file_sha256(path, cache) == ONE
    assert not (cache / "sha256").exists() or not list((cache / "sha256").iterdir())
