"""The pictures of docs/screenshots: any run of the tests makes them; `make screenshots` keeps those of trained models.

`$VLBENCH_SCREENSHOTS` names the folder that they are kept in and `$VLBENCH_SCREENSHOT_RUNS` that of the runs they show,
which are trained on the whole world then; runs that are there already are not done twice.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from vlbench.world.generate import ensure_world

LARGEST = 200_000
# Of 255 levels: Chromium smooths the edges of letters a little differently where it paints a page in other tiles.
SAME = 8
KEPT = os.environ.get("VLBENCH_SCREENSHOTS")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_world: Path, cache: Path) -> Path:
    """The folder of runs, on NLVR2 at least of CVLP and ViLT."""
    from vlbench.cli.main import main

    place = Path(os.environ.get("VLBENCH_SCREENSHOT_RUNS") or tmp_path_factory.mktemp("screenshots"))
    arguments = ["run", "--controls", "none", "--quiet", "--output-path", str(place)]
    if KEPT:
        arguments += ["--task", "nlvr2,snli_ve", "--model", "cvlp,lxmert,vilt", "--epochs", "3"]
        arguments += ["--data-root", str(ensure_world(cache))]
    else:
        arguments += ["--task", "nlvr2", "--model", "cvlp,vilt", "--steps", "4", "--batch-size", "8"]
        arguments += ["--data-root", str(tiny_world)]
    assert main(arguments) == 0
    return place


@pytest.fixture(scope="module")
def pages(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A report with attention and a leaderboard."""
    from vlbench.cli.main import main

    place = tmp_path_factory.mktemp("pages")
    report, board = place / "report.html", place / "leaderboard.html"
    cvlp, vilt = (str(next(runs.glob(f"nlvr2/{name}-tiny/*"))) for name in ("cvlp", "vilt"))
    assert main(["report", cvlp, vilt, "--attention", "--max-examples", "200", "--html", str(report)]) == 0
    arguments = ["leaderboard", str(runs), "--columns", "main,parameters", "--pareto", "parameters"]
    assert main([*arguments, "--format", "html", "--output", str(board)]) == 0
    return report, board


@pytest.mark.parametrize(
    ("name", "width", "height", "dark"),
    [("report", 1000, 900, False), ("report-phone", 390, 844, True), ("leaderboard", 1000, 800, False)],
)
def test_the_pictures_of_the_documents_can_be_made(
    browser: Any, pages: tuple[Path, Path], tmp_path: Path, name: str, width: int, height: int, dark: bool
) -> None:
    report, board = pages
    shots = [tmp_path / "again.png", Path(KEPT or tmp_path) / f"{name}.png"]
    for shot in shots:
        browser.open(board if name == "leaderboard" else report)
        browser.resize(width, height)
        if name != "leaderboard":
            browser.press("a")
            browser.run("document.getElementById('count').scrollIntoView({behavior: 'instant'})")
        browser.screenshot(shot, width, height, dark=dark)
    assert shots[1].stat().st_size < LARGEST
    again, kept = (Image.open(shot).convert("RGB") for shot in shots)
    assert kept.size == (width, height)
    assert len(kept.getcolors(1 << 20) or ()) > 50, "something is drawn"
    apart = max(largest for _, largest in ImageChops.difference(again, kept).getextrema())
    assert apart <= SAME, "a page looks the same twice"
    assert browser.faults() == []
