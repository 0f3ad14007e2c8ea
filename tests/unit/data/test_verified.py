"""Hashes of all files, kept at their first verification and compared at every later one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vlbench.core.errors import DataError, ExitCode
from vlbench.core.task import Task
from vlbench.data.splits.verified import Verified, verify
from vlbench.engine.source import load_task

Verify = Callable[..., Verified]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data of NLVR2 of two examples, with region features, and an empty cache."""
    monkeypatch.setenv("VLBENCH_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data"
    (root / "images" / "dev").mkdir(parents=True)
    (root / "features").mkdir()
    lines = [{"identifier": f"dev-{row}-0-0", "sentence": "Two dogs.", "label": "True"} for row in range(2)]
    (root / "dev.json").write_text("\n".join(map(json.dumps, lines)))
    (root / "features" / "all.tsv").write_text("features")
    for row in range(2):
        for side in range(2):
            (root / "images" / "dev" / f"dev-{row}-0-img{side}.png").write_bytes(b"image %d %d" % (row, side))
    return root


def checked(root: Path, split: str = "dev", **options: object) -> Verified:
    task: Task = load_task("nlvr2", root, allow_partial=True)
    images = {ref.key: ref.path for example in task.load(split) for ref in example.query.images}
    return verify(task, split, images, **options)


def changed(path: Path) -> None:
    """One byte becomes another; size and time of modification stay."""
    seen, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def test_the_first_time_hashes_are_kept_and_later_they_are_compared(root: Path) -> None:
    calls: list[tuple[int, int]] = []
    first = checked(root, progress=lambda done, total: calls.append((done, total)))
    assert (first.files, first.new, first.differing, first.fault) == (6, 6, (), "")
    assert first.said == (
        f"first verification of 6 files of split 'dev' of nlvr2: their hashes are recorded in {first.place}"
    )
    assert calls == [(done, 6) for done in range(1, 7)]
    kept = json.loads(first.place.read_text())
    assert kept["files"]["annotations/annotations"] == hashlib.sha256((root / "dev.json").read_bytes()).hexdigest()
    assert sorted(name.split("/")[0] for name in kept["files"]) == ["annotations", "features", *["images"] * 4]
    again = checked(root)
    assert (again.files, again.new, again.fault) == (6, 0, "")
    assert again.said == f"verified 6 files of split 'dev' of nlvr2: as on {first.since}"


@pytest.mark.parametrize("name", ["images/dev/dev-1-0-img0.png", "features/all.tsv", "dev.json"])
def test_a_changed_file_of_equal_size_and_time_is_named(root: Path, name: str) -> None:
    first = checked(root)
    if name == "dev.json":
        (root / name).write_text((root / name).read_text().replace("Two dogs.", "Two cats."))
    else:
        changed(root / name)
    for _ in range(2):  # the kept hashes stay what they were
        found = checked(root)
        assert found.differing == (str(root / name),)
        assert found.fault == (
            f"1 file of split 'dev' of nlvr2 is not as verified on {first.since} ({root / name}): restore what was "
            f"there, or delete {found.place} to accept the current files"
        )
    found.place.unlink()
    assert checked(root).fault == ""


@pytest.mark.parametrize("name", ["images/dev/dev-1-0-img0.png", "features/all.tsv"])
def test_a_file_that_is_gone_differs_and_one_that_has_come_is_kept_as_well(root: Path, name: str) -> None:
    content = (root / name).read_bytes()
    (root / name).unlink()
    assert checked(root).files == 5
    (root / name).write_bytes(content)
    came = checked(root)
    assert (came.files, came.new, came.fault) == (6, 1, "")
    assert came.said.endswith(", the hashes of 1 new ones are recorded")
    (root / name).unlink()
    (gone,) = checked(root).differing
    assert Path(gone).name == Path(name).name


def test_hashes_are_kept_by_the_real_path_of_the_data(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    places = {checked(root).place, checked(link).place}
    assert len(places) == 1
    copy = tmp_path / "copy"
    root.rename(copy)
    assert checked(copy).place not in places


def test_a_damaged_memory_is_said(root: Path) -> None:
    place = checked(root).place
    place.write_text("{")
    with pytest.raises(DataError, match=r"delete .* to record the hashes again") as caught:
        checked(root)
    assert caught.value.exit_code == ExitCode.DATA == 5
