"""Folders of profiles: each its own, and none where nothing came of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlbench.core.errors import DataError, ExitCode
from vlbench.records.profiles import new_folder


def test_two_in_one_second_have_a_folder_each(tmp_path: Path) -> None:
    made = []
    for _ in range(3):
        with new_folder(tmp_path / "profiles", "vilt-1") as folder:
            (folder / "profile.json").write_text(str(len(made)))
            made.append(folder)
    assert [folder.name for folder in made] == ["vilt-1", "vilt-1-2", "vilt-1-3"]
    assert [(folder / "profile.json").read_text() for folder in made] == ["0", "1", "2"]


def test_nothing_is_left_of_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "a" / "b", "vilt-1") as folder:
        assert folder.is_dir()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_what_others_put_there_stays(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a", "vilt-1"):
        (tmp_path / "a" / "notes.txt").write_text("")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("inner", ["", "below/it"])
def test_a_file_in_its_place(tmp_path: Path, inner: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write") as caught, new_folder(tmp_path / "file" / inner, "vilt-1"):
        pass
    assert caught.value.exit_code == ExitCode.DATA and (tmp_path / "file").is_file()
