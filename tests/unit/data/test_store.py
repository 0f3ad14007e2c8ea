"""The feature store: what goes in comes out, and what is damaged is said to be."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from vlbench.core.errors import DataError
from vlbench.data.regions.store import FeatureStore, store_for_tsv
from vlbench.data.regions.tsv import write_tsv
from vlbench.data.regions.types import Regions

Make = Callable[..., Regions]
Same = Callable[[Regions, Regions], None]


@pytest.fixture
def rows(regions: Make) -> list[tuple[str, Regions]]:
    return [(f"ключ/{seed}", regions(seed, count=1 + seed % 4)) for seed in range(6)]


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_what_goes_in_comes_out(tmp_path: Path, rows: list[tuple[str, Regions]], same: Same) -> None:
    built = FeatureStore.build(tmp_path / "a" / "store", iter(rows), source="a test")
    opened = FeatureStore(tmp_path / "a" / "store")
    for store in (built, opened, pickle.loads(pickle.dumps(opened))):
        assert len(store) == 6 and store.dim == 5
        assert json.loads((store.folder / "store.json").read_text())["source"] == "a test"
        assert list(store) == [key for key, _ in rows]
        for key, regions in reversed(rows):
            assert key in store
            same(store.get(key), regions)
    assert "another" not in opened
    assert entries(tmp_path / "a") == ["store"]


def test_arrays_are_the_callers_own(tmp_path: Path, rows: list[tuple[str, Regions]]) -> None:
    store = FeatureStore.build(tmp_path / "store", rows, source="a test")
    key = rows[0][0]
    store.get(key).features[:] = 0
    np.testing.assert_array_equal(store.get(key).features, rows[0][1].features)


def test_the_hash_is_of_the_content(tmp_path: Path, rows: list[tuple[str, Regions]], regions: Make) -> None:
    def sha256(name: str, rows: list[tuple[str, Regions]]) -> str:
        return FeatureStore.build(tmp_path / name, rows, source=name).sha256

    first = sha256("one", rows)
    assert sha256("two", rows) == first
    assert sha256("three", rows[:-1]) != first
    assert sha256("four", [*rows[:-1], (rows[-1][0], regions(99, count=2))]) != first
    assert sha256("five", [*rows[:-1], ("other key", rows[-1][1])]) != first


def test_nothing_is_left_of_a_build_that_fails(tmp_path: Path, rows: list[tuple[str, Regions]], regions: Make) -> None:
    def breaks() -> Iterator[tuple[str, Regions]]:
        yield from rows
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FeatureStore.build(tmp_path / "store", breaks(), source="a test")
    with pytest.raises(DataError, match=f"the key '{rows[0][0]}' comes twice"):
        FeatureStore.build(tmp_path / "store", [*rows, rows[0]], source="a test")
    with pytest.raises(DataError, match=r"'wide' have feature of shape \(3, 6\) where \(3, 5\)"):
        FeatureStore.build(tmp_path / "store", [*rows, ("wide", regions(7, dim=6))], source="a test")
    with pytest.raises(DataError, match="at least one region"):
        FeatureStore.build(tmp_path / "store", [*rows, ("none", regions(7, count=0))], source="a test")
    with pytest.raises(DataError, match="a test holds no region features"):
        FeatureStore.build(tmp_path / "store", [], source="a test")
    assert entries(tmp_path) == []


def test_a_build_replaces_an_older_store_only_at_its_end(tmp_path: Path, rows: list[tuple[str, Regions]]) -> None:
    old = FeatureStore.build(tmp_path / "store", rows[:1], source="old")
    old.get(rows[0][0])
    new = FeatureStore.build(tmp_path / "store", rows, source="new")
    assert len(new) == 6 and len(FeatureStore(tmp_path / "store")) == 6
    assert old.get(rows[0][0]).width == rows[0][1].width  # who had it open keeps it
    assert entries(tmp_path) == ["store"]


def test_a_place_that_cannot_be_written(tmp_path: Path, rows: list[tuple[str, Regions]]) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot write .*file/store"):
        FeatureStore.build(tmp_path / "file" / "store", rows, source="a test")


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_a_full_disk_leaves_nothing(tmp_path: Path, rows: list[tuple[str, Regions]]) -> None:
    write_tsv(tmp_path / "features.tsv", rows)
    code = (
        "import resource, sys, pathlib\n"
        "from vlbench.core.errors import DataError\n"
        "from vlbench.data.regions.store import FeatureStore\n"
        "from vlbench.data.regions.tsv import read_tsv\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        "try: FeatureStore.build(folder / 'store', read_tsv(folder / 'features.tsv'), 'a test')\n"
        "except DataError as error: print(error.message)\n"
    )
    printed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True).stdout
    assert printed.startswith(f"cannot write {tmp_path / 'store'}")
    assert entries(tmp_path) == ["features.tsv"]


def truncate(store: Path) -> None:
    file = store / "regions.bin"
    file.write_bytes(file.read_bytes()[:-1])


def change_index(store: Path) -> None:
    file = store / "index.json"
    file.write_text(file.read_text().replace("100", "101", 1))


def change_format(store: Path) -> None:
    file = store / "store.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))


@pytest.mark.parametrize(
    "damage, message",
    [
        (truncate, "bytes of regions where"),
        (change_index, "an index that is not the one written"),
        (change_format, "has format 99 where 1"),
        (lambda store: (store / "store.json").write_text("{"), "cannot be opened"),
        (lambda store: (store / "regions.bin").unlink(), "cannot be opened"),
        (shutil.rmtree, "cannot be opened"),
    ],
)
def test_a_damaged_store_says_what_to_do(
    tmp_path: Path, rows: list[tuple[str, Regions]], damage: Callable[[Path], None], message: str
) -> None:
    FeatureStore.build(tmp_path / "store", rows, source="a test")
    damage(tmp_path / "store")
    with pytest.raises(DataError, match=message) as caught:
        FeatureStore(tmp_path / "store")
    assert "remove the folder" in caught.value.message


def test_a_flipped_bit_is_found_where_it_is_read(tmp_path: Path, rows: list[tuple[str, Regions]]) -> None:
    FeatureStore.build(tmp_path / "store", rows, source="a test")
    file = tmp_path / "store" / "regions.bin"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    store = FeatureStore(tmp_path / "store")
    store.get(rows[0][0])
    with pytest.raises(DataError, match=f"damaged regions of '{rows[-1][0]}'"):
        store.get(rows[-1][0])
    with pytest.raises(DataError, match=r"no regions of 'nobody'.*vlbench data features"):
        store.get("nobody")


def test_a_tsv_is_converted_once_per_content(
    tmp_path: Path, rows: list[tuple[str, Regions]], same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    tsv, cache = tmp_path / "features.tsv", tmp_path / "cache"
    write_tsv(tsv, rows)
    calls: list[tuple[int, int]] = []
    first = store_for_tsv(tsv, cache, lambda done, total: calls.append((done, total)))
    assert calls[-1] == (tsv.stat().st_size, tsv.stat().st_size)
    same(first.get(rows[3][0]), rows[3][1])
    write_tsv(tmp_path / "copy.tsv", rows)
    with monkeypatch.context() as patch:
        patch.setattr("vlbench.data.regions.store.read_tsv", None)  # whoever converts again fails
        assert store_for_tsv(tsv, cache).folder == first.folder
        assert store_for_tsv(tmp_path / "copy.tsv", cache).folder == first.folder
    write_tsv(tsv, rows[1:])
    assert len(store_for_tsv(tsv, cache)) == 5
    tsv.write_text("broken\n")
    with pytest.raises(DataError, match="line 1"):
        store_for_tsv(tsv, cache)
    assert len(entries(cache / "regions")) == 2
