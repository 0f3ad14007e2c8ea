"""Archives that mean harm leave nothing behind."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from vlbench.core.errors import DataError
from vlbench.data.files.unpack import unpack


def make_zip(path: Path, names: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in names.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, content)
    return path


def make_tar(path: Path, names: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for name, content in names.items():
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), "/etc/passwd"
            packed.addfile(info, io.BytesIO(content))
    return path


MAKERS = [make_zip, make_tar]
Make = Callable[..., Path]


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("make", MAKERS)
def test_files_come_out_over_those_there(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "kept.txt").write_bytes(b"kept")
    (folder / "a" / "old.txt").write_bytes(b"old")
    archive = make(tmp_path / "x", {"a/old.txt": b"new", "b/c/d.txt": b"deep", "top.json": b"{}"})
    steps: list[tuple[int, int]] = []
    unpack(archive, folder, lambda done, total: steps.append((done, total)))
    assert everything(folder) == {
        "a/kept.txt": b"kept", "a/old.txt": b"new", "b/c/d.txt": b"deep", "top.json": b"{}",
    }  # fmt: skip
    assert [done for done, _ in steps] == [1, 2, 3]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a\\..\\x", "C:x", ".."])
def test_names_that_lead_out(make: Make, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "in" / "data"
    folder.mkdir(parents=True)
    archive = make(tmp_path / "x", {"fine.txt": b"1", name: b"2"})
    with pytest.raises(DataError, match="leads out of the folder"):
        unpack(archive, folder, lambda *_: None)
    assert everything(tmp_path / "in") == {}


def test_links_and_devices(tmp_path: Path) -> None:
    linked = make_zip(tmp_path / "x.zip", {"link": b"/etc/passwd"}, stat.S_IFLNK | 0o777)
    devices = [make_tar(tmp_path / "t", {"x": b""}, kind) for kind in (tarfile.SYMTYPE,)]
    hard = make_tar(tmp_path / "h", {"x": b""}, tarfile.LNKTYPE)
    pipe = make_tar(tmp_path / "p", {"x": b""}, tarfile.FIFOTYPE)
    for archive in (linked, *devices, hard, pipe):
        with pytest.raises(DataError, match="a link or a device"):
            unpack(archive, tmp_path / "data", lambda *_: None)
    assert everything(tmp_path / "data") == {}


@pytest.mark.parametrize("make", MAKERS)
def test_a_bomb(make: Make, tmp_path: Path) -> None:
    archive = make(tmp_path / "x", {"zeros": bytes(5 << 20)})
    with pytest.raises(DataError, match="unpacks to more than 1,000,000 bytes"):
        unpack(archive, tmp_path / "data", lambda *_: None, most=1_000_000)
    assert everything(tmp_path / "data") == {}


@pytest.mark.parametrize("make", MAKERS)
def test_damage(make: Make, tmp_path: Path) -> None:
    archive = make(tmp_path / "x", {f"{n}.txt": bytes(range(256)) * 40 for n in range(9)})
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="delete it and fetch it again"):
        unpack(archive, tmp_path / "data", lambda *_: None)
    (tmp_path / "y").write_bytes(b"<html>moved</html>")
    with pytest.raises(DataError, match="delete it and fetch it again"):
        unpack(tmp_path / "y", tmp_path / "data", lambda *_: None)
    assert everything(tmp_path / "data") == {}
