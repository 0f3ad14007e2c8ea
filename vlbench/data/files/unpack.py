"""Archives from elsewhere, unpacked without trusting a name or a size in them."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from vlbench.core.errors import DataError

MOST = 200 << 30
"""Bytes that an archive may unpack to: the largest known, GQA's pictures, has a tenth of that."""
_CHUNK = 1 << 20
_UNREADABLE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, RuntimeError)
"""What the readers raise: of a zip a RuntimeError where it is encrypted, or packed in a way that they do not know."""


@dataclass(frozen=True)
class _Member:
    """A file in an archive; `open` reads it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, progress: Callable[[int, int], None], most: int = MOST) -> int:
    """Put the files of a zip or tar archive below `folder`, over those that are there; returns how many.

    They are written beside and moved when all are there, so that a broken archive leaves nothing.

    Args:
        progress: told files written and files in all.
        most: bytes that it may unpack to.

    Raises:
        DataError: it is no archive, is damaged, or names a place outside the folder, a link or a device; it is larger
            than `most` or than the space on the disk.
    """
    beside = folder / f".unpacking-{archive.name}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        with _members(archive) as (members, total):
            done = _write(members, total, beside, min(most, shutil.disk_usage(folder).free), archive, progress)
        _move(beside, folder)
    except _UNREADABLE as error:
        raise DataError(
            f"{archive} cannot be read as an archive ({' '.join(str(error).split())[:160]}): delete it and fetch it "
            f"again"
        ) from None
    except OSError as error:
        raise DataError(
            f"cannot unpack {archive} to {folder} ({error.strerror or error}): delete it and fetch it again, or free "
            f"some space"
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return done


def _write(
    members: Iterator[_Member],
    total: int,
    beside: Path,
    most: int,
    archive: Path,
    progress: Callable[[int, int], None],
) -> int:
    left, done = most, 0
    for done, member in enumerate(members, start=1):
        target = beside / _inside(member.name, archive)
        target.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, target.open("wb") as file:
            while chunk := source.read(_CHUNK):  # counted as it comes: the size that an archive states may be a lie
                left -= len(chunk)
                if left < 0:
                    raise DataError(
                        f"{archive} unpacks to more than {most:,} bytes, which is more than the disk has left or than "
                        f"any known data: it was not unpacked"
                    )
                file.write(chunk)
        progress(done, max(total, done))
    return done


def _inside(name: str, archive: Path) -> PurePosixPath:
    """The name as a path that stays below the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.parts or "\0" in name:
        raise DataError(f"{archive} holds {name[:200]!r}, which leads out of the folder: it was not unpacked")
    return path


@contextmanager
def _members(archive: Path) -> Iterator[tuple[Iterator[_Member], int]]:
    """The files in it, and how many there are; 0 where that is known at the end only."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield _of_zip(packed, archive), sum(not info.is_dir() for info in packed.infolist())
        return
    with tarfile.open(archive, "r|*") as stream:
        yield _of_tar(stream, archive), 0


def _of_zip(packed: zipfile.ZipFile, archive: Path) -> Iterator[_Member]:
    for info in packed.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _no_file(info.filename, archive)
        if not info.is_dir():
            yield _Member(info.filename, info.file_size, lambda info=info: packed.open(info))  # type: ignore[misc]


def _of_tar(stream: tarfile.TarFile, archive: Path) -> Iterator[_Member]:
    for info in stream:
        if info.isdir():
            continue
        if not info.isreg():
            raise _no_file(info.name, archive)
        source = stream.extractfile(info)
        if source is not None:
            yield _Member(info.name, info.size, lambda source=source: source)  # type: ignore[misc]


def _no_file(name: str, archive: Path) -> DataError:
    return DataError(f"{archive} holds {name[:200]!r}, which is a link or a device: it was not unpacked")


def _move(beside: Path, folder: Path) -> None:
    """Everything into its place; what is new there in one step, so that a folder is whole where it is."""
    for path in sorted(beside.iterdir()):
        target = folder / path.name
        if path.is_dir() and target.is_dir():
            _move(path, target)
        else:
            path.replace(target)
