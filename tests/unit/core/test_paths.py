"""Which files are hidden, and that no reader of users' folders takes them for data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlbench import catalog
from vlbench.core.cards import SplitCard
from vlbench.core.errors import VlbenchError
from vlbench.core.paths import is_hidden, visible
from vlbench.core.task import SplitFiles
from vlbench.data.cache.index import annotation_files
from vlbench.records.collect import collect

HIDDEN = ("._a.json", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/a.json", "a/.git/b.json", "a/._b.json")


def put(folder: Path, *names: str) -> None:
    """Files of bytes as macOS and Windows leave them, which are in no format of ours."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\x00\x05\x16\x07\x00\x02\xff")


def test_hidden_and_visible(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "data"  # where the folder is does not count
    put(folder, *HIDDEN, "a/b.json", "c.json")
    assert visible(folder, "**/*.json") == [folder / "a" / "b.json", folder / "c.json"]
    assert all(map(is_hidden, HIDDEN)) and not any(map(is_hidden, ("a.b", "..", "a/../b", "./a", "")))


def test_shards_features_and_images_are_found_without_hidden_ones(tmp_path: Path) -> None:
    put(tmp_path / "shards", "a.json", "b.jsonl", "._a.json", ".DS_Store")
    files = SplitFiles("dev", tmp_path, SplitCard(files={"questions": ("shards",)}))
    assert [name for name, _ in annotation_files(files)] == ["questions/a.json", "questions/b.jsonl"]
    put(tmp_path / "nlvr2" / "features", "dev.tsv", "._dev.tsv")
    task = catalog.load_task("nlvr2", tmp_path / "nlvr2", "real")
    assert task.features() == [tmp_path / "nlvr2" / "features" / "dev.tsv"]


def test_an_image_of_macos_is_not_taken_for_the_one_of_nlvr(tmp_path: Path) -> None:
    image = tmp_path / "nlvr" / "hidden" / "images" / "7" / "hidden-1-0-0.png"
    copies = tmp_path / "nlvr" / "hidden" / "images" / "__MACOSX" / "7"  # sorted after the folder of the image
    put(image.parent, image.name)
    put(copies, image.name)
    line = {"identifier": "1-0", "sentence": "a box", "label": "true"}
    (tmp_path / "nlvr" / "hidden" / "hidden.json").write_text(json.dumps(line) + "\n")
    examples = catalog.load_task("nlvr", tmp_path / "nlvr", "real", allow_partial=True).load("hidden")
    assert examples[0].query.images[0].path == image


@pytest.mark.parametrize("hidden", ["._run.json", ".DS_Store.json"])
def test_records_of_a_folder_are_read_without_hidden_files(tmp_path: Path, hidden: str) -> None:
    put(tmp_path, hidden)
    with pytest.raises(VlbenchError, match="no runs there"):
        collect([tmp_path])
