"""Which files a plug-in or a task consists of, and that their hash changes with each of them and with nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vlbench.data.files.code import CODE, WEIGHTS, content_sha256, data_beside, files_below, with_imports


def made(folder: Path, **files: str) -> Path:
    """A folder with Python files; `_in_` in a name is a slash."""
    for name, content in files.items():
        path = folder / f"{name.replace('_in_', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(with_imports(folder, files_below(folder, CODE)))


def test_modules_below_count_and_tests_runs_and_environments_do_not(tmp_path: Path) -> None:
    folder = made(
        tmp_path, a="", test_a="", conftest="", parts_in_b="", parts_in_deeper_in_c="", venv_in_d="", data_in_e_in_f=""
    )
    made(folder / ".hidden", g="")
    made(folder / "node_modules", h="")
    made(folder / "site-packages", i="")
    (folder / "venv" / "pyvenv.cfg").touch()
    (folder / "runs").mkdir()
    (folder / "runs" / "run.json").touch()
    assert names(folder) == ["a.py", "parts/b.py", "parts/deeper/c.py"]


def test_weights_below_count(tmp_path: Path) -> None:
    for name in ("a.pt", "weights/b.safetensors", "runs/vqa2/checkpoints/c.safetensors", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path, WEIGHTS)]
    assert found == ["a.pt", "weights/b.safetensors"]


def test_imports_are_followed_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "elsewhere"
    made(
        site,
        mine_kit_in___init__="raise RuntimeError",
        mine_kit_in_used="from . import twice\nfrom .inner.deep import x",
        mine_kit_in_twice="import mine_single",
        mine_kit_in_inner_in_deep="from ..above import y",
        mine_kit_in_above="",
        mine_kit_in_unused="",
        mine_single="import json, torch, numpy.linalg",
    )
    folder = made(tmp_path / "own", a="import os, beside.b\nfrom mine_kit.used import z\nimport vlbench.core.errors")
    made(folder, beside_in_b="import a\n")
    monkeypatch.syspath_prepend(str(site))
    assert names(folder) == [
        "..mine_kit/above.py",
        ".mine_kit/inner/deep.py",
        ".mine_kit/twice.py",
        "/mine_kit/__init__.py",
        "/mine_kit/used.py",
        "/mine_single.py",
        "a.py",
        "beside/b.py",
    ]
    assert "mine_kit" not in sys.modules


def test_installed_libraries_count_only_where_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = made(
        tmp_path / "site-packages", library_in___init__="", library_in_metric="import other_library", other_library=""
    )
    folder = made(tmp_path / "task", adapter="import library.metric")
    monkeypatch.syspath_prepend(str(site))
    assert names(folder) == ["adapter.py"]
    named = with_imports(folder, files_below(folder, CODE), ["library.metric", "vlbench.metrics.accuracy"])
    assert sorted(named) == ["/library/__init__.py", "/library/metric.py", "adapter.py"]
    inside = made(site / "library" / "model", backbone="from library.metric import x")
    assert sorted(with_imports(inside, files_below(inside, CODE))) == [
        "/library/__init__.py",
        "/library/metric.py",
        "backbone.py",
    ]


def test_a_built_in_task_that_is_imported_counts(tmp_path: Path) -> None:
    folder = made(tmp_path, adapter="from vlbench._tasks.snli_ve.lines import rows")
    assert "vlbench._tasks/snli_ve/lines.py" in names(folder)


def test_code_that_is_none_counts_all_the_same(tmp_path: Path) -> None:
    folder = made(tmp_path, a="import b\ndef (", b="")
    (folder / "c.py").write_bytes(b"\xff\x00")
    assert names(folder) == ["a.py", "b.py", "c.py"]


def test_the_hash_is_of_names_and_content_wherever_they_lie(tmp_path: Path) -> None:
    one, two = made(tmp_path / "one", a="1", b="2"), made(tmp_path / "two", a="1", b="2")

    def hashed(folder: Path) -> str:
        return content_sha256(with_imports(folder, files_below(folder, CODE)))

    assert hashed(one) == hashed(two)
    made(two, b="3")
    assert hashed(one) != hashed(two)
    made(two, b="1", a="2")
    assert hashed(one) != hashed(two)


def test_data_beside_is_neither_code_nor_documentation(tmp_path: Path) -> None:
    for name in ("words.json", "list.txt", "README.md", "README.txt", "LICENSE", ".hidden", "a.py", "task.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "sample").mkdir()
    assert [path.name for path in data_beside(tmp_path, but=("task.yaml",))] == ["list.txt", "words.json"]
