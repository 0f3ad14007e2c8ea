"""The data root: the given folder, else the environment's, else the built-in world; never a silent fallback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from vlbench.core.errors import DataError, VlbenchError
from vlbench.engine import source
from vlbench.engine.source import find_data_root, load_task
from vlbench.world.generate import WorldSize, ensure_world


def test_a_folder_is_real_data_or_a_world(tiny_world: Path, tmp_path: Path) -> None:
    world, real = find_data_root(tiny_world), find_data_root(tmp_path)
    assert (world.kind, world.counts["nlvr2"]["dev"]) == ("world", 96)
    assert (real.path, real.kind, real.counts) == (tmp_path, "real", {})


def test_the_environment_comes_second_and_the_world_last(
    tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told
) -> None:
    generated: list[object] = []
    monkeypatch.setattr(source, "ensure_world", lambda _, domain, **__: generated.append(domain) or tiny_world)
    assert find_data_root(None, "textured", told).path == tiny_world
    assert (generated, told.lines) == (["textured"], ["no --data-root: using the built-in world (textured)"])
    monkeypatch.setenv("VLBENCH_DATA", str(tmp_path))
    assert find_data_root(None).path == tmp_path
    assert find_data_root(tiny_world).path == tiny_world
    assert len(generated) == 1


def test_missing_data_never_falls_back_to_the_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "ensure_world", lambda *_, **__: pytest.fail("the world was made"))
    with pytest.raises(DataError, match=r"--data-root .*nowhere is not a folder"):
        load_task("nlvr2", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"needs data/dev\.json"):
        load_task("nlvr2", tmp_path).load("dev")


def test_an_unknown_task_generates_no_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "ensure_world", lambda *_, **__: pytest.fail("the world was made"))
    with pytest.raises(VlbenchError, match="unknown task 'nlvr3'"):
        load_task("nlvr3")


def test_only_the_task_is_generated(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(source, "ensure_world", lambda *_, tasks, **__: asked.append(tasks) or tiny_world)
    assert len(load_task("nlvr2").load("dev")) == 96
    assert asked == [("nlvr2",)]
    with pytest.raises(DataError, match=r"the built-in world has no data for 'flickr8k_retrieval' \(it has coco"):
        load_task("flickr8k_retrieval")
    assert len(asked) == 1


def test_a_task_that_the_given_world_lacks(tmp_path: Path) -> None:
    root = ensure_world(tmp_path, size=WorldSize(1, 1, 1, 1), tasks=["nlvr2"])
    with pytest.raises(DataError, match=r"no data for 'gqa' \(it has nlvr2\): run vlbench data world to generate it"):
        load_task("gqa", root)


def test_the_worlds_counts_are_checked(tiny_world: Path, tmp_path: Path) -> None:
    world = Path(shutil.copytree(tiny_world, tmp_path / "world"))
    assert len(load_task("nlvr2", world).load("dev")) == 96
    path = world / "nlvr2" / "data" / "dev.json"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="holds 95 examples where 96 are expected"):
        load_task("nlvr2", world).load("dev")


def test_a_world_with_unknown_splits(tiny_world: Path, tmp_path: Path) -> None:
    world = Path(shutil.copytree(tiny_world, tmp_path / "world"))
    info = json.loads((world / "world.json").read_text())
    info["counts"]["nlvr2"]["test-q"] = 3
    (world / "world.json").write_text(json.dumps(info))
    with pytest.raises(VlbenchError, match=r"splits \['test-q'\] of nlvr2 that are not on its card"):
        load_task("nlvr2", world)


def test_a_task_lies_in_its_folder_or_at_the_root(tmp_path: Path) -> None:
    assert load_task("nlvr2", tmp_path).root == tmp_path
    (tmp_path / "nlvr2").mkdir()
    assert load_task("nlvr2", tmp_path).root == tmp_path / "nlvr2"
