"""LXMERT's TSV, against lines written here by hand."""

from __future__ import annotations

import base64
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vlbench.core.errors import DataError
from vlbench.data.regions.tsv import FIELDS, read_tsv, write_tsv
from vlbench.data.regions.types import Regions


def line(count: int = 2, dim: int = 3, **fields: str) -> str:
    """A line as LXMERT's extractor writes it, single fields replaced."""

    def encoded(values: np.ndarray) -> str:
        return base64.b64encode(values.tobytes()).decode()

    values = {
        "img_id": "COCO_val2014_000000000042",
        "img_h": "480",
        "img_w": "640",
        "objects_id": encoded(np.arange(count, dtype=np.int64)),
        "objects_conf": encoded(np.full(count, 0.5, np.float32)),
        "attrs_id": encoded(np.arange(count, dtype=np.int64) + 7),
        "attrs_conf": encoded(np.full(count, 0.25, np.float32)),
        "num_boxes": str(count),
        "boxes": encoded(np.arange(4 * count, dtype=np.float32)),
        "features": encoded(np.arange(dim * count, dtype=np.float32)),
    }
    return "\t".join((values | fields).values()) + "\n"


def read(tmp_path: Path, *lines: str) -> list[tuple[str, Regions]]:
    path = tmp_path / "features.tsv"
    path.write_text("".join(lines))
    return list(read_tsv(path))


def test_reads_what_lxmert_writes(tmp_path: Path) -> None:
    ((key, found),) = read(tmp_path, line())
    assert key == "COCO_val2014_000000000042" and (found.width, found.height) == (640, 480)
    assert found.boxes.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert found.features.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found.object_ids.tolist() == [0, 1] and found.object_confidences.tolist() == [0.5, 0.5]
    assert found.attribute_ids.tolist() == [7, 8] and found.attribute_confidences.tolist() == [0.25, 0.25]


def test_any_number_of_boxes_bare_padding_and_windows_line_ends(tmp_path: Path) -> None:
    bare = line(count=5).replace("=", "")
    rows = read(tmp_path, line(count=1).replace("\n", "\r\n"), bare, "\n", line(count=36))
    assert [len(found.features) for _, found in rows] == [1, 5, 36]


def test_round_trip(tmp_path: Path, regions: Callable[..., Regions], same: Callable[[Regions, Regions], None]) -> None:
    rows = [(f"picture-{seed}", regions(seed, count=seed + 1)) for seed in range(4)]
    path = tmp_path / "new" / "features.tsv"
    write_tsv(path, rows)
    back = list(read_tsv(path))
    assert [key for key, _ in back] == [key for key, _ in rows]
    for (_, one), (_, other) in zip(rows, back, strict=True):
        same(one, other)
    assert [entry.name for entry in path.parent.iterdir()] == ["features.tsv"]


def b64(count: int, dtype: str = "<f4") -> str:
    return base64.b64encode(np.zeros(count, dtype).tobytes()).decode()


@pytest.mark.parametrize(
    "second, message",
    [
        (line(dim=4), "features holds 32 bytes where 24 are expected (2 x 3 numbers)"),
        (line(features=b64(5)), "features holds 20 bytes where 24 are expected"),
        (line(boxes=b64(7)), "boxes holds 28 bytes where 32 are expected"),
        (line(objects_id=b64(2)), "objects_id holds 8 bytes where 16 are expected"),
        (line(num_boxes="3"), "boxes holds 32 bytes where 48 are expected"),
        (line(num_boxes="0"), "num_boxes is 0"),
        (line(num_boxes="two"), "num_boxes is b'two'"),
        (line(img_h="-480"), "img_h is -480"),
        (line(features="$$$$"), "features is not base64"),
        (line(boxes="A"), "boxes is not base64"),
        (line(img_id=""), "img_id is empty"),
        (line(features=base64.b64encode(np.full(6, np.nan, np.float32).tobytes()).decode()), "not finite"),
        ("only\tthree\tfields\n", "3 fields separated by tabs where 10 are expected"),
        (line()[:100], "fields separated by tabs where 10 are expected"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, second: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read(tmp_path, line(), second)
    assert f"{tmp_path / 'features.tsv'}, line 2: " in caught.value.message


def test_a_bad_first_line_is_named_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 1: features holds 20 bytes where 16 are expected"):
        read(tmp_path, line(features=b64(5)))


def test_a_missing_file_and_a_key_no_line_can_hold(tmp_path: Path, regions: Callable[..., Regions]) -> None:
    with pytest.raises(DataError, match="cannot read"):
        list(read_tsv(tmp_path / "absent.tsv"))
    with pytest.raises(DataError, match="cannot be written to a TSV"):
        write_tsv(tmp_path / "out.tsv", [("fine", regions(0)), ("a\tb", regions(1))])
    assert not list(tmp_path.iterdir())


def test_streams_in_constant_memory_and_tells_how_far_it_is(tmp_path: Path) -> None:
    path = tmp_path / "large.tsv"
    with path.open("w") as file:
        file.writelines([line(count=36, dim=256)] * 240)  # about 13 MB
    calls: list[tuple[int, int]] = []
    tracemalloc.start()
    count = sum(1 for _ in read_tsv(path, lambda done, total: calls.append((done, total))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 240 and peak < 2_000_000
    assert calls[-1] == (path.stat().st_size, path.stat().st_size) and 5 < len(calls) < 30
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_field_names_are_lxmerts() -> None:
    names = "img_id img_h img_w objects_id objects_conf attrs_id attrs_conf num_boxes boxes features"
    assert " ".join(FIELDS) == names
