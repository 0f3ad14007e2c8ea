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
from vlbench.data.files.unpack import temporary_folder, unpack


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


def test_damage_for_which_the_reader_of_zip_files_has_no_error(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("a.txt", b"text" * 1000)
    content = bytearray(archive.read_bytes())
    content[44:54] = b"\xff" * 10
    archive.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as an archive"):
        unpack(archive, tmp_path / "data", lambda *_: None)


@pytest.mark.parametrize("make", MAKERS)
def test_the_card_and_the_size_of_the_archive_bound_what_it_unpacks_to(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"zeros": bytes(5 << 20)}
    with pytest.raises(DataError, match="unpacks to more than 4,000,000 bytes, far more than its card"):
        unpack(make(tmp_path / "x", content), tmp_path / "data", lambda *_: None, unpacked_gb=0.002)
    unpack(make(tmp_path / "x", content), tmp_path / "data", lambda *_: None, unpacked_gb=0.003)
    monkeypatch.setattr("vlbench.data.files.unpack._SMALL", 1)
    archive = make(tmp_path / "x", content)
    with pytest.raises(DataError, match=f"unpacks to more than {100 * archive.stat().st_size:,} bytes"):
        unpack(archive, tmp_path / "other", lambda *_: None)
    assert everything(tmp_path / "other") == {}


@pytest.mark.parametrize("make", MAKERS)
def test_the_number_of_members_is_bounded(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlbench.data.files.unpack._MEMBERS", 3)
    unpack(make(tmp_path / "x", dict.fromkeys("abc", b"")), tmp_path / "data", lambda *_: None)
    with pytest.raises(DataError, match="holds more than 3 files and folders"):
        unpack(make(tmp_path / "x", dict.fromkeys("abcd", b"")), tmp_path / "more", lambda *_: None)
    with pytest.raises(DataError, match="more than 100 folders deep"):
        unpack(make(tmp_path / "x", {"a/" * 2000: b"", "a/" * 2000 + "b": b""}), tmp_path / "more", lambda *_: None)
    assert everything(tmp_path / "more") == {}


@pytest.mark.parametrize("make", MAKERS)
def test_hidden_files_are_left_in_the_archive(make: Make, tmp_path: Path) -> None:
    junk = ("__MACOSX/a/._b.txt", "a/._b.txt", ".DS_Store", "a/Thumbs.db", ".git/config")
    unpack(make(tmp_path / "x", dict.fromkeys(("a/b.txt", *junk), b"1")), tmp_path / "data", lambda *_: None)
    assert everything(tmp_path / "data") == {"a/b.txt": b"1"}


@pytest.mark.parametrize("make", MAKERS)
def test_nothing_is_written_through_a_link(make: Make, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match=r"'a/b/c.txt', which would be written through the link .*data/a"):
        unpack(make(tmp_path / "x", {"a/b/c.txt": b"1"}), tmp_path / "data", lambda *_: None)
    assert everything(tmp_path / "outside") == {}


class Killed(BaseException):
    """Ends the work where it is, as a signal does."""


@pytest.mark.parametrize("survived", range(4))
def test_an_interrupted_move_is_known_until_it_is_repeated(
    survived: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {"a/1.txt": b"1", "a/2.txt": b"2", "b.txt": b"3"}
    folder, archive = tmp_path / "data", make_zip(tmp_path / "data.zip", contents)
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "0.txt").write_bytes(b"0")
    steps = [0]
    replace, delete = Path.replace, Path.unlink

    def counted(path: Path) -> None:
        if steps[0] == survived and (path.is_file() or path == archive):
            raise Killed
        steps[0] += path.is_file()

    def counted_replace(path: Path, target: Path) -> Path:
        counted(path)
        return replace(path, target)

    def counted_unlink(path: Path, missing_ok: bool = False) -> None:
        counted(path)
        delete(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", counted_replace)
        patched.setattr(Path, "unlink", counted_unlink)
        with pytest.raises(Killed):
            unpack(archive, folder, lambda *_: None)
    assert archive.is_file() and temporary_folder(archive, folder).is_dir()
    unpack(archive, folder, lambda *_: None)
    assert everything(folder) == contents | {"a/0.txt": b"0"}
    assert not archive.exists() and not temporary_folder(archive, folder).exists()
