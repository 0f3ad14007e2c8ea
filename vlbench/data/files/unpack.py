"""Unpack archives without trusting the names and sizes in them."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from vlbench.core.errors import DataError

MOST = 200 << 30
"""Bytes that an archive may unpack to; the largest known one, the images of GQA, has a tenth of that."""
_CHUNK = 1 << 20
_UNREADABLE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, RuntimeError)
"""What the readers raise; a RuntimeError is for a zip file that is encrypted or uses an unknown compression."""

Progress = Callable[[int, int], None]
_Member = tuple[str, IO[bytes]]
"""The name of a file in an archive, and the file opened for reading."""


def unpack(archive: Path, folder: Path, progress: Progress, most: int = MOST) -> None:
    """Unpack a zip or tar archive into `folder`, replacing files of the same name.

    The files are written to a temporary folder and moved when all are complete, so a damaged archive leaves nothing.
    progress: called with the number of files written and of all files. most: bytes that it may unpack to. Raises
    DataError if it is not an archive, is damaged, contains a link, a device or a path outside the folder, or is larger
    than `most` or than the free space on the disk.
    """
    temporary = folder / f".unpacking-{archive.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with _members(archive) as (members, total):
            _write(members, total, temporary, min(most, shutil.disk_usage(folder).free), archive, progress)
        _move(temporary, folder)
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
        shutil.rmtree(temporary, ignore_errors=True)


def _write(
    members: Iterator[_Member], total: int, temporary: Path, most: int, archive: Path, progress: Progress
) -> None:
    left = most
    for done, (name, stream) in enumerate(members, start=1):
        target = temporary / _inside(name, archive)
        target.parent.mkdir(parents=True, exist_ok=True)
        with stream as source, target.open("wb") as file:
            while chunk := source.read(_CHUNK):  # counted here: the size that the archive states may be wrong
                left -= len(chunk)
                if left < 0:
                    raise DataError(
                        f"{archive} unpacks to more than {most:,} bytes, more than the disk has free or than any "
                        f"known data has: it was not unpacked"
                    )
                file.write(chunk)
        progress(done, max(total, done))


def _inside(name: str, archive: Path) -> PurePosixPath:
    """The name as a path, after checking that it stays inside the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.parts or "\0" in name:
        raise _rejected(name, archive, "leads out of the folder")
    return path


@contextmanager
def _members(archive: Path) -> Iterator[tuple[Iterator[_Member], int]]:
    """The files in an archive and their number; 0 if that is known only at the end."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield _zip_members(packed, archive), sum(not info.is_dir() for info in packed.infolist())
        return
    with tarfile.open(archive, "r|*") as stream:
        yield _tar_members(stream, archive), 0


def _zip_members(packed: zipfile.ZipFile, archive: Path) -> Iterator[_Member]:
    for info in packed.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _rejected(info.filename, archive, "is a link or a device")
        if not info.is_dir():
            yield info.filename, packed.open(info)


def _tar_members(stream: tarfile.TarFile, archive: Path) -> Iterator[_Member]:
    for info in stream:
        if info.isdir():
            continue
        if not info.isreg():
            raise _rejected(info.name, archive, "is a link or a device")
        source = stream.extractfile(info)
        if source is not None:
            yield info.name, source


def _rejected(name: str, archive: Path, fault: str) -> DataError:
    return DataError(f"{archive} holds {name[:200]!r}, which {fault}: it was not unpacked")


def _move(temporary: Path, folder: Path) -> None:
    """Move all files and folders to `folder`; a folder that is new there is moved in one step."""
    for path in sorted(temporary.iterdir()):
        target = folder / path.name
        if path.is_dir() and target.is_dir():
            _move(path, target)
        else:
            path.replace(target)
