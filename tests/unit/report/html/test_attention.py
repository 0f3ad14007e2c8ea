from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlbench.records.attention import Attended, Attention, write_attention
from vlbench.report.html.attention import overlays, said
from vlbench.report.html.run_page import run_page
from vlbench.report.html.thumbnails import ReportImages

CELLS = [[x / 3, y / 3, (x + 1) / 3, (y + 1) / 3] for y in range(3) for x in range(3)]
NAMES = ["top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right"]


def over_cells(weights: list[float], name: str = "e0", place: int = 0) -> Attended:
    return Attended(name, place, np.array(weights, np.float32), np.array(CELLS, np.float32))


@pytest.mark.parametrize("cell", range(9))
def test_each_ninth_has_its_name(cell: int) -> None:
    assert said(over_cells([float(number == cell) for number in range(9)])) == f"{NAMES[cell]} 100 %"


def test_the_heaviest_parts_are_said_and_tokens_of_a_part_count_together() -> None:
    weights = [0.02, 0.0, 0.3, 0.0, 0.25, 0.03, 0.4, 0.0, 0.0]
    assert said(over_cells(weights)) == "bottom left 40 %, top right 30 %, centre 25 %"
    twice = Attended("e", 0, np.array([0.25, 0.4, 0.35], np.float32), np.array([CELLS[0], CELLS[8], CELLS[0]]))
    assert said(twice) == "top left 60 %, bottom right 40 %"


def test_levels_follow_the_weights_and_boxes_are_shared() -> None:
    rows = {"e0": [over_cells([0.5, 0.25, 0, 0, 0, 0, 0, 0, 0.25])], "e1": [over_cells([0, 1.0, 0, 0, 0, 0, 0, 0, 0])]}
    over = overlays([Attention("run", "", "", rows)], ["e0", "e1", "e2"])
    (first,), (second,) = over.heats["a", "e0"], over.heats["a", "e1"]
    levels = [int(digit, 36) / 35 for digit in first.levels]
    assert levels == pytest.approx([1, 0.5, 0, 0, 0, 0, 0, 0, 0.5], abs=0.5 / 35)
    assert second.levels == "0z0000000"
    assert first.boxes == second.boxes == 0
    assert len(over.boxes) == 1 and len(over.boxes[0]) == 4 * 9
    assert over.boxes[0][4 * 5 : 4 * 6] == [667, 333, 333, 334]
    assert over.letters == ("a",)
    assert over.notes == ("the attention is shown for 2 of 3 examples",)


def test_a_page_has_room_for_so_much(make_run: Any) -> None:
    ids = [f"e{number}" for number in range(500)]
    draw = np.random.default_rng(0)
    rows = {name: [Attended(name, 0, np.ones(40), draw.random((40, 4)).astype(np.float32))] for name in ids}
    sides = [Attention("a", "", "", rows), Attention("b", "", "", rows)]
    over = overlays(sides, ids, budget=50_000)
    assert 0 < len(over.heats) < 1000
    assert {name for _, name in over.heats} == set(ids[: len({name for _, name in over.heats})]), "the first ones"
    taken = json.dumps([over.boxes, [[one.boxes, one.levels, one.said] for (one,) in over.heats.values()]])
    assert len(taken) < 52_000
    assert [note.split(" is shown")[0] for note in over.notes] == ["the attention of A", "the attention of B"]


def test_a_page_without_the_file_has_no_attention(make_run: Any) -> None:
    text = run_page(make_run("a", [1.0, 0.0]), None, ReportImages())
    assert 'id="attention"' not in text and "attention" not in text.split("<main")[1].split("<script")[0]


def test_a_page_with_the_file_has_it_without_torch(make_run: Any, tmp_path: Path) -> None:
    run, other = make_run("a", [1.0, 0.0]), make_run("b", [0.0, 0.0], model="vilt")
    from vlbench.records.folder import read_run
    from vlbench.records.samples import read_samples

    ids = read_samples(run / "samples.parquet")["example_id"].tolist()
    rows = {name: [over_cells([0.2] * 5 + [0.0] * 4, name)] for name in ids}
    write_attention(run / "attention.parquet", Attention(read_run(run).fingerprint, "", "", rows))
    write_attention(other / "attention.parquet", Attention(read_run(other).fingerprint, "", "vilt <b>does not</b>"))
    text = run_page(run, other, ReportImages())
    assert (
        '<button type="button" aria-pressed="false" aria-keyshortcuts="a" data-run="a">Attention of A</button>' in text
    )
    assert "Attention of B" not in text
    assert "no attention of B: vilt &lt;b&gt;does not&lt;/b&gt;" in text
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert data["rows"][0]["a"]["attention"] == [
        {"boxes": 0, "levels": "zzzzz0000", "said": "centre 20 %, left 20 %, top 20 %"}
    ]
    assert data["rows"][0]["b"]["attention"] == []
