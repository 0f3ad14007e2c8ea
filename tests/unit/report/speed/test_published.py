"""The papers' figures beside a profile's, and the arithmetic in the sentences that explain the gaps."""

from __future__ import annotations

import pytest

from vlbench import catalog
from vlbench.core.profile import ProfileRecord
from vlbench.data.images.patches import fitted
from vlbench.report.published.results import complexity
from vlbench.report.speed.published import cost_table, published_cost, published_ratio, ratio_lines

GIGA = 1e9


def vilt(tokens: int, patches: int) -> float:
    """Multiplications with additions of ViLT-B/32: layers of width 768, the projection of patches, the pooler."""
    width, inner = 768, 3072
    layer = tokens * (4 * width * width + 2 * width * inner) + 2 * tokens * tokens * width
    return 12 * layer + patches * 3 * 32 * 32 * width + width * width


def test_vilts_gap_in_numbers() -> None:
    text = next(row.gap for row in complexity().rows if row.model == "ViLT-B/32")
    for figure in (2 * vilt(200 + 40, 200), 2 * vilt(240 + 1 + 40, 240)):
        assert f" {figure / GIGA:.1f}" in text


def test_vilts_patches_are_those_of_its_preprocessing() -> None:
    text = next(row.gap for row in complexity().rows if row.model == "ViLT-B/32")
    config = catalog.model_card("vilt").sizes["base"].config
    short, long, patch = (int(config[name]) for name in ("short_side", "long_side", "patch"))
    assert (short, long, patch) == (384, int(1333 / 800 * 384), 32) and f" {long} without the fraction" in text
    columns, rows = (side // patch for side in fitted(1000, 600, short, long, patch))
    assert f"{columns * rows} patches" in text
    assert (columns + 1, rows + 1) == (640 // patch, 384 // patch)


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
