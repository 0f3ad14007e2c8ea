"""Unpack archives without trusting the names and sizes in them."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

from vlbench.core.errors import DataError
from vlbench.core.paths import is_hidden, leads_out

MOST = 200 << 30
"""Bytes that any archive may unpack to; the largest known one, the images of GQA, has a tenth of that."""
_FACTOR = 2
"""By how much an archive may exceed the size that its card states: those are rounded, and owners may add files."""
_RATIO = 100
"""Bytes per byte of the archive: NLVR2's annotations in JSON have 7, more repetitive ones more, zeros 1,000."""
_SMALL = 64 << 20
"""Bytes that an archive of any size may unpack to."""
_MEMBERS = 1_000_000
"""Files and folders in an archive; COCO's train2014 has 82,783."""
_DEPTH = 100
"""Folders within each other."""
_CHUNK = 1 << 20

Progress = Callable[[int, int], None]
_Member = tuple[str, IO[bytes]]
"""The name of a file in an archive, and the file opened for reading."""
_Info = TypeVar("_Info", zipfile.ZipInfo, tarfile.TarInfo)


def unpack(archive: Path, folder: Path, progress: Progress, unpacked_gb: float | None = None, most: int = MOST) -> None:
    """Unpack a zip or tar archive into `folder`, replacing files of the same name, and delete the archive.

    The files are written to a temporary folder and moved when all are complete, so a damaged archive leaves nothing.
    The temporary folder is deleted last: after an interruption, an archive beside it has to be unpacked again. Hidden
    files are left out. progress: called with the number of files written and of all files. unpacked_gb: what it holds
    according to its card. most: bytes that it may unpack to. Raises DataError if it is not an archive, is damaged,
    contains a link, a device or a path outside the folder, or holds much more than its card or its own size let expect.
    """
    temporary = temporary_folder(archive, folder)
    try:
        most = min(most, _bound(archive.stat().st_size, unpacked_gb))
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            with _members(archive) as (members, total):
                _write(members, total, temporary, most, archive, progress)
        except BaseException:  # nothing was moved
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _move(temporary, folder)
        archive.unlink()
        shutil.rmtree(temporary, ignore_errors=True)
    except DataError:
        raise
    except OSError as error:
        raise DataError(
            f"cannot unpack {archive} to {folder} ({error.strerror or error}): delete it and fetch it again, or free "
            f"some space"
        ) from None
    except Exception as error:  # the readers raise any type of error
        raise DataError(
            f"{archive} cannot be read as an archive ({' '.join(str(error).split())[:160]}): delete it and fetch it "
            f"again"
        ) from None


def temporary_folder(archive: Path, folder: Path) -> Path:
    """Where an archive is unpacked before its files are moved to `folder`; it exists until the archive is deleted."""
    return folder / f".unpacking-{archive.name}"


def _bound(size: int, unpacked_gb: float | None) -> int:
    """Bytes that an archive of `size` bytes may unpack to."""
    by_ratio = max(_SMALL, _RATIO * size)
    return by_ratio if unpacked_gb is None else min(by_ratio, int(_FACTOR * unpacked_gb * 10**9))


def _write(
    members: Iterator[_Member], total: int, temporary: Path, most: int, archive: Path, progress: Progress
) -> None:
    left, free = most, shutil.disk_usage(temporary).free
    folders = {PurePosixPath(".")}
    for done, (name, stream) in enumerate(members, start=1):
        path = _inside(name, archive)
        if path.parent not in folders:
            _check_links(path, temporary.parent, archive)
            (temporary / path.parent).mkdir(parents=True, exist_ok=True)
            folders.add(path.parent)
        with stream as source, (temporary / path).open("wb") as file:
            while chunk := source.read(_CHUNK):  # counted here: the size that the archive states may be wrong
                left -= len(chunk)
                if left < 0:
                    raise DataError(
                        f"{archive} unpacks to more than {most:,} bytes, far more than its card or its own size let "
                        f"expect: it was not unpacked; delete it, and check on the task's homepage what it should hold"
                    )
                if most - left > free:
                    raise DataError(
                        f"{archive} unpacks to more than the {free:,} bytes that are free in {temporary.parent}: free "
                        f"some space or give another --data-root"
                    )
                file.write(chunk)
        progress(done, max(total, done))


def _inside(name: str, archive: Path) -> PurePosixPath:
    """The name as a path, after checking that it stays inside the folder."""
    path = PurePosixPath(name)
    if leads_out(name) or not path.parts:
        raise _rejected(name, archive, "leads out of the folder")
    if len(path.parts) > _DEPTH:
        raise _rejected(name, archive, f"is more than {_DEPTH} folders deep")
    return path


def _check_links(path: PurePosixPath, folder: Path, archive: Path) -> None:
    for parent in path.parents:
        if parent.parts and (folder / parent).is_symlink():
            raise _rejected(str(path), archive, f"would be written through the link {folder / parent}")


@contextmanager
def _members(archive: Path) -> Iterator[tuple[Iterator[_Member], int]]:
    """The files in an archive and their number; 0 if that is known only at the end."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            infos = list(_counted(packed.infolist(), archive))
            files = [info for info in infos if not info.is_dir() and not is_hidden(info.filename)]
            yield _zip_members(packed, files, archive), len(files)
        return
    with tarfile.open(archive, "r|*") as stream:
        yield _tar_members(stream, archive), 0


def _counted(members: Iterable[_Info], archive: Path) -> Iterator[_Info]:
    """The same members. Raises DataError if there are too many."""
    for number, member in enumerate(members):
        if number == _MEMBERS:
            raise DataError(f"{archive} holds more than {_MEMBERS:,} files and folders: it was not unpacked")
        yield member


def _zip_members(packed: zipfile.ZipFile, files: Iterable[zipfile.ZipInfo], archive: Path) -> Iterator[_Member]:
    for info in files:
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise _rejected(info.filename, archive, "is a link or a device")
        yield info.filename, packed.open(info)


def _tar_members(stream: tarfile.TarFile, archive: Path) -> Iterator[_Member]:
    for info in _counted(stream, archive):
        if info.isdir() or is_hidden(info.name):
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
        try:
            path.replace(target)
        except OSError:  # another archive may have made the folder at any time
            if not (path.is_dir() and target.is_dir()):
                raise
            _move(path, target)
