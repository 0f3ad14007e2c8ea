"""Checking a split, and the hash that says whether the data changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from vlbench.core.cards import SplitCard, TaskCard
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.core.task import SplitFiles, Task
from vlbench.data.splits.verify import check_split, manifest, read_split

LINES = ["1 red", "2 green", "3 blue", "4 green"]


def adapter(files: SplitFiles) -> Iterator[Example[Label]]:
    images = files.place("images")
    for line in files.path("annotations").read_text().splitlines():
        name, colour = line.split()
        ref = ImageRef(images / f"{colour}.png", colour)
        yield Example(name, Query((ref,), colour), Label("yes"), group=colour)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setenv("VLBENCH_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "root"
    (root / "images").mkdir(parents=True)
    text = "\n".join(LINES)
    (root / "dev.txt").write_text(text)
    (root / "test.txt").write_text("9 red")
    for colour in ("red", "green", "blue"):
        Image.new("RGB", (8, 8), colour).save(root / "images" / f"{colour}.png")
    return Task(_card(hashlib.md5(text.encode()).hexdigest()), root, "real", adapter, {})


def _card(md5: str) -> TaskCard:
    def split(name: str, count: int, **hashes: str) -> SplitCard:
        files = {"annotations": (f"{name}.txt",), "images": ("images", "pictures")}
        return SplitCard(files=files, count=count, md5=hashes)

    return TaskCard(
        name="colours",
        title="Colours",
        version=1,
        description="",
        output="classify",
        images_per_example=1,
        metrics={"accuracy": "a:b"},
        main_metric="accuracy",
        splits={"dev": split("dev", 4, annotations=md5), "test": split("test", 1)},
        train_split="dev",
        select_on="dev",
        report_split="test",
        features=("features/*.tsv",),
        homepage="",
        licence="",
        citation="",
    )


def test_all_well(task: Task) -> None:
    calls: list[tuple[int, int]] = []
    report = check_split(task, read_split(task, "dev"), progress=lambda done, total: calls.append((done, total)))
    assert report.ok and report.notes == () and report.faults == ()
    assert (report.split, report.examples, report.expected) == ("dev", 4, 4)
    assert (report.groups, report.images, report.missing, report.undecodable) == (3, 3, 0, 0)
    assert [file.found == file.expected for file in report.md5] == [True]
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_missing_and_undecodable_images_are_named(task: Task) -> None:
    (task.root / "images" / "red.png").unlink()
    (task.root / "images" / "blue.png").write_bytes(b"")
    report = check_split(task, read_split(task, "dev"))
    assert not report.ok and (report.missing, report.undecodable) == (1, 1)
    assert any("1 of 3 images are missing" in fault and "red.png" in fault for fault in report.faults)
    assert any("cannot be decoded" in fault and "blue.png is empty" in fault for fault in report.faults)
    unseen = check_split(task, read_split(task, "dev"), images=False)
    assert unseen.ok and unseen.notes == ("images were not checked",)


def test_without_images_only_annotations_are_checked(task: Task) -> None:
    for path in (task.root / "images").iterdir():
        path.unlink()
    report = check_split(task, read_split(task, "dev"))
    assert report.ok and report.missing == 3
    assert report.notes == ("no images: only the annotations were checked",)


def test_other_annotations_are_faults_unless_partial_ones_are_allowed(task: Task) -> None:
    (task.root / "dev.txt").write_text("\n".join(LINES[:3]))
    report = check_split(task, read_split(task, "dev"))
    assert not report.ok and len(report.faults) == 2
    assert "3 examples where 4 are expected" in report.faults[0] and "has md5" in report.faults[1]
    allowed = check_split(replace(task, allow_partial=True), read_split(replace(task, allow_partial=True), "dev"))
    assert allowed.ok and allowed.notes == report.faults


def test_ids_twice_and_nothing_at_all(task: Task) -> None:
    (task.root / "dev.txt").write_text("\n".join([*LINES[:3], LINES[0]]))
    assert any("1 ids occur twice: 1" in fault for fault in check_split(task, read_split(task, "dev")).faults)
    (task.root / "dev.txt").write_text("")
    assert "there are no examples" in check_split(task, read_split(task, "dev")).faults


def test_a_split_that_is_not_there(task: Task) -> None:
    with pytest.raises(VlbenchError, match="dev"):
        check_split(task, read_split(task, "dve"))
    (task.root / "dev.txt").unlink()
    for work in (lambda: check_split(task, read_split(task, "dev")), lambda: hashed(task, "dev")):
        with pytest.raises(DataError, match=r"dev\.txt"):
            work()


def hashed(task: Task, *splits: str) -> str:
    return manifest(task, {split: task.load(split) for split in splits})


def test_the_manifest_changes_with_the_data_and_only_with_it(task: Task, tmp_path: Path) -> None:
    first = hashed(task, "dev", "test")
    assert hashed(task, "test", "dev") == first
    moved = task.root.rename(tmp_path / "elsewhere")
    task = replace(task, root=moved)
    assert hashed(task, "dev", "test") == first
    (moved / "unrelated.txt").write_text("not asked for")
    assert hashed(task, "dev", "test") == first
    seen = {first, hashed(task, "dev")}
    (moved / "features").mkdir()
    (moved / "features" / "a.tsv").write_text("x")
    seen.add(hashed(task, "dev", "test"))
    (moved / "images" / "red.png").unlink()
    seen.add(hashed(task, "dev", "test"))
    (moved / "images" / "red.png").write_bytes(b"12345")
    seen.add(hashed(task, "dev", "test"))
    (moved / "test.txt").write_text("9 red\n")
    seen.add(hashed(task, "dev", "test"))
    assert len(seen) == 6


def test_the_real_nlvr2_annotations(shared_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VLBENCH_CACHE", str(tmp_path))
    from vlbench.catalog import load_task

    task = load_task("nlvr2", shared_data / "nlvr2", "real")
    for split, examples, groups in (("dev", 6_982, 2_018), ("test-p", 6_967, 1_995)):
        report = check_split(task, read_split(task, split))
        assert report.ok and (report.examples, report.groups) == (examples, groups)
        assert [file.found == file.expected for file in report.md5] == [True]
        assert "no images" in report.notes[0]


def test_the_real_nlvr_images_that_dev_and_test_share(shared_data: Path) -> None:
    """Counted apart by hashing every file: 216 images of dev have the bytes of 222 of test, in 258 pairs."""
    from vlbench.catalog import load_task
    from vlbench.data.splits.overlap import digests, shared

    task = load_task("nlvr", shared_data / "nlvr1", "real")
    dev, test = read_split(task, "dev"), read_split(task, "test")
    both = shared(dev, test, digests([dev, test]))
    assert (len(both.copied), len(both.copied_other), len(both.copies)) == (216, 222, 258)
    names: dict[str, tuple[set[str], set[str]]] = {}
    for side, one in enumerate((dev, test)):
        for name, path in one.images.items():
            names.setdefault(hashlib.md5(path.read_bytes()).hexdigest(), (set(), set()))[side].add(name)
    twins = [pair for pair in names.values() if all(pair)]
    assert sum(len(ours) for ours, _ in twins) == 216 and sum(len(theirs) for _, theirs in twins) == 222
