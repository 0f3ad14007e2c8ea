from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest

from vlbench.core.errors import ExitCode
from vlbench.core.profile import ProfileRecord
from vlbench.records.profiles import read_profile, write_profile
from vlbench.report.speed.pages import PAGE, main, records_of

COMMITTED = Path(__file__).resolve().parents[4] / "leaderboards" / "speed"


def test_the_committed_page_is_what_its_records_say() -> None:
    assert main([str(COMMITTED), "--check"]) == ExitCode.OK, "run make speed-table"
    for name, record in records_of(COMMITTED).items():
        assert not record.spec.output_path.is_absolute(), "a record names no folder of the machine"
        assert all((COMMITTED / "pictures" / name / f"stages.{form}").is_file() for form in ("png", "svg"))


@pytest.fixture
def folder(profile: ProfileRecord, tmp_path: Path) -> Path:
    write_profile(tmp_path / "made", profile, ())
    (tmp_path / "records").mkdir()
    (tmp_path / "made" / "profile.json").rename(tmp_path / "records" / "small.json")
    return tmp_path


def test_a_page_of_records(folder: Path) -> None:
    assert main([str(folder), "--check"]) == ExitCode.STALE
    assert main([str(folder)]) == ExitCode.OK and main([str(folder), "--check"]) == ExitCode.OK
    text = (folder / PAGE).read_text(encoding="utf-8")
    record = read_profile(folder / "records" / "small.json")
    assert record.environment.cpu in text and "NOISY, do not quote" in text
    assert "| cvlp-base | detect RoI head | 4,000" in text and "published: 60.0" in text
    (shown,) = [line for line in text.splitlines() if line.startswith("![")]
    assert (folder / shown.partition("(")[2].rstrip(")")).is_file()


def test_what_is_not_current_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(folder)])
    other = copytree(folder, folder / "other")
    with (other / PAGE).open("a", encoding="utf-8") as file:
        file.write("faster\n")
    assert main([str(other), "--check"]) == ExitCode.STALE
    assert f"{other / PAGE}: missing or stale" in capsys.readouterr().err


def test_a_picture_that_the_page_shows_is_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(folder)])
    picture = folder / "pictures" / "small" / "stages.png"
    picture.unlink()
    assert main([str(folder), "--check"]) == ExitCode.STALE
    told = capsys.readouterr().err
    assert str(picture) in told and PAGE not in told


def test_pictures_of_the_same_record_are_the_same(folder: Path) -> None:
    main([str(folder)])
    paths = [folder / "pictures" / "small" / f"stages.{form}" for form in ("png", "svg")]
    before = [path.read_bytes() for path in paths]
    main([str(folder)])
    assert [path.read_bytes() for path in paths] == before


def test_no_records_and_the_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vlbench.report.speed.pages", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.USAGE and "holds no profile" in done.stderr and "Traceback" not in done.stderr
