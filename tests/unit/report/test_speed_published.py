"""The papers' figures beside a profile's, and the arithmetic in the sentences that explain the gaps."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlbench.core.profile import ProfileRecord
from vlbench.report.published import complexity
from vlbench.report.speed_pages import records_of
from vlbench.report.speed_published import cost_table, published_cost, published_ratio, ratio_lines

GIGA = 1e9
SPEED = Path(__file__).resolve().parents[3] / "leaderboards" / "speed"


def vilt(tokens: int, patches: int) -> float:
    """Multiplications with additions of ViLT-B/32: layers of width 768, the projection of patches, the pooler."""
    width, inner = 768, 3072
    layer = tokens * (4 * width * width + 2 * width * inner) + 2 * tokens * tokens * width
    return 12 * layer + patches * 3 * 32 * 32 * width + width * width


def bottlenecks(blocks: int, inputs: int, width: int, cells: int) -> int:
    """Of one stage of a ResNet whose shortcut changes the width, all of it on as many cells."""
    inner = 9 * width * width + width * 4 * width
    return cells * (inputs * width + inputs * 4 * width + (blocks - 1) * 4 * width * width + blocks * inner)


def backbone() -> int:
    """Of ResNet-101 up to res4, over 600 x 1000 pixels."""
    stem = 300 * 500 * 3 * 64 * 49
    stages = ((3, 64, 64, 150 * 250), (4, 256, 128, 75 * 125), (23, 512, 256, 38 * 63))
    return stem + sum(bottlenecks(*stage) for stage in stages)


def gap(model: str) -> str:
    return next(row.gap for row in complexity().rows if row.model == model)


def test_vilts_gap_in_numbers() -> None:
    text = gap("ViLT-B/32")
    for figure in (2 * vilt(200 + 40, 200), 2 * vilt(240 + 1 + 40, 240)):
        assert f" {figure / GIGA:.1f}" in text
    assert (1000 * 384 // 600 // 32 - 1) * (384 // 32 - 1) == 209 and "209 patches" in text


def test_the_detectors_gap_in_numbers() -> None:
    text = gap("LXMERT")
    res5 = 300 * bottlenecks(3, 1024, 512, 14 * 14)
    assert f" {backbone() / GIGA:.0f}," in text and f"cells {res5 / GIGA:.0f} " in text
    (cvlp, *_) = [one for record in records_of(SPEED).values() for one in record.models if one.name == "cvlp-base"]
    assert cvlp.operations is not None
    whole = cvlp.operations.total / 2 / GIGA
    assert f"CVLP {whole:.0f}, {100 * (whole / 952.0 - 1):.0f} % above" in text


def test_which_figures_belong_to_which_model() -> None:
    lxmert, same = published_cost("lxmert-base"), published_cost("cvlp-base")
    assert lxmert is same and lxmert is not None and lxmert.gflops == 952.0
    assert published_cost("cvlp-tiny") is None
    found = published_ratio("cvlp-base", "vilt-base")
    assert found is not None and found[0] == 60.0 and "table 6" in found[1]
    found = published_ratio("lxmert-base", "soho-base")
    assert found is not None and found[0] == 10 and "SOHO" in found[1]
    assert published_ratio("cvlp-base", "lxmert-base") is None and published_ratio("soho-base", "cvlp-base") is None


def test_they_stand_beside_and_never_inside(profile: ProfileRecord) -> None:
    (line,) = ratio_lines(profile).splitlines()
    assert line.startswith("- cvlp-base takes 40.5 [40.0, 41.0] times as long as vilt-base")
    assert "published: 60.0 (LXMERT : ViLT-B/32, Kim et al. 2021" in line
    rows = [row for row in cost_table(profile).splitlines() if row.startswith("| cvlp-base")]
    assert [cell.strip() for cell in rows[0].split("|")[1:-1]] == [
        "cvlp-base", "1,705", "LXMERT", "36 + 20", "952", "~900",
    ]  # fmt: skip


@pytest.mark.parametrize("changed", [{"stages": ("see",)}, {"detector": False}])
def test_a_part_is_not_compared_with_the_whole(profile: ProfileRecord, changed: dict[str, object]) -> None:
    part = profile.model_copy(update={"spec": profile.spec.model_copy(update=changed)})
    assert "published" not in ratio_lines(part)
    assert "LXMERT" not in cost_table(part)
