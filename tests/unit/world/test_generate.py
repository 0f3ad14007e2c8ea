from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vlbench import catalog
from vlbench.core.domain import Domain
from vlbench.core.errors import DataError, ExitCode
from vlbench.data import parallel
from vlbench.world.generate import TINY, WorldSize, content_sha256, ensure_world, is_world, world_info
from vlbench.world.language.statements import STATEMENT_KINDS
from vlbench.world.scenes import images

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "world.json").read_text())
SMALL = WorldSize(1, 1, 1, 1)
MAKE = """
import sys
from pathlib import Path
from vlbench.data import parallel
from vlbench.world.generate import TINY, ensure_world
parallel.usable_cores = lambda: int(sys.argv[2])
if __name__ == "__main__":
    root = ensure_world(Path(sys.argv[1]), progress=lambda *news: print(*news, flush=True), size=TINY)
    print("made", root, flush=True)
"""


def start(cache: Path, cores: int = 1) -> subprocess.Popen[str]:
    """Another process that generates the tiny world, in a process group of its own."""
    script = cache / "make.py"
    script.write_text(MAKE)
    command = [sys.executable, str(script), str(cache), str(cores)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def started_images(process: subprocess.Popen[str]) -> bool:
    """Wait until the process reports images; whether it did before it ended."""
    assert process.stdout is not None
    return any("images" in line for line in process.stdout)


@pytest.mark.parametrize("domain", ["plain", "textured"])
def test_the_same_bytes_on_every_machine(tiny_world: Path, tmp_path: Path, domain: Domain) -> None:
    """A change here changes every number measured on synthetic data: increase WORLD_VERSION and say so."""
    root = tiny_world if domain == "plain" else ensure_world(tmp_path, domain, size=TINY)
    assert content_sha256(root) == world_info(root).sha256 == GOLDEN[domain]


def test_one_process_and_two_make_the_same(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cores in (1, 2):
        monkeypatch.setattr(parallel, "usable_cores", lambda cores=cores: cores)
        assert content_sha256(ensure_world(tmp_path / str(cores), size=TINY)) == content_sha256(tiny_world)


def test_a_world_says_what_is_in_it(tiny_world: Path) -> None:
    info = world_info(tiny_world)
    assert (info.seed, info.domain, info.kinds) == (0, "plain", STATEMENT_KINDS)
    assert info.counts["nlvr2"] == {"train": 192, "dev": 96, "test-p": 96, "test-u": 96}
    for task, counts in info.counts.items():
        assert counts.keys() <= catalog.task_card(task).splits.keys()
        assert all(counts.values())
    assert {"coco", "flickr30k", "gqa"} | info.counts.keys() <= {path.name for path in tiny_world.iterdir()}


def test_tasks_are_generated_one_by_one_with_the_bytes_of_the_whole_world(tmp_path: Path) -> None:
    whole = ensure_world(tmp_path / "whole", size=SMALL)
    cards = []
    for task in ("nlvr2", "flickr30k_retrieval", "snli_ve"):
        root = ensure_world(tmp_path, size=SMALL, tasks=[task])
        cards.append(list(world_info(root).counts))
        assert world_info(root).sha256 == content_sha256(root)
    assert cards == [["nlvr2"], ["nlvr2", "flickr30k_retrieval"], ["nlvr2", "snli_ve", "flickr30k_retrieval"]]
    names = {"nlvr2", "flickr30k", "flickr30k_retrieval", "snli_ve", "scenes", "vocab.txt", "world.json"}
    assert {path.name for path in root.iterdir()} == names
    assert ensure_world(tmp_path, size=SMALL) == root
    assert hashes(root) == hashes(whole)


def test_a_task_whose_generation_was_interrupted_is_made_anew(tmp_path: Path) -> None:
    root = ensure_world(tmp_path, size=SMALL, tasks=["nlvr2"])
    (root / "coco").mkdir()  # moved, but not listed on the card yet
    (root / "coco" / "half").write_text("")
    assert hashes(ensure_world(tmp_path, size=SMALL)) == hashes(ensure_world(tmp_path / "whole", size=SMALL))


def hashes(root: Path) -> dict[Path, bytes]:
    """Every file below the root."""
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_scene_is_rendered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[str] = []
    monkeypatch.setattr(parallel, "usable_cores", lambda: 1)
    draw = images.render_scene
    monkeypatch.setattr(
        images, "render_scene", lambda scene, domain, seed: rendered.append(scene.id) or draw(scene, domain, seed)
    )
    ensure_world(tmp_path, size=SMALL)
    assert len(rendered) == len(set(rendered)) >= 32


def test_a_world_is_made_once_and_anew_for_another_seed_domain_or_size(tmp_path: Path) -> None:
    news: list[tuple[str, int, int]] = []
    root = ensure_world(tmp_path, size=SMALL, progress=lambda *step: news.append(step))
    assert news and all(0 < done <= total for _, done, total in news)
    before, made = len(news), (root / "world.json").stat().st_mtime_ns
    assert ensure_world(tmp_path, size=SMALL, progress=lambda *step: news.append(step)) == root
    assert (root / "world.json").stat().st_mtime_ns == made and len(news) == before
    others = {ensure_world(tmp_path, "textured", size=SMALL), ensure_world(tmp_path, seed=1, size=SMALL)}
    shas = {world_info(other).sha256 for other in (root, *others)}
    assert len(others - {root}) == 2 and len(shas) == 3


def test_a_killed_generation_leaves_nothing_that_looks_complete(tmp_path: Path, tiny_world: Path) -> None:
    process = start(tmp_path)
    assert started_images(process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    parts = [path for path in (tmp_path / "world").iterdir() if path.is_dir()]
    assert len(parts) == 1 and not is_world(parts[0]) and parts[0].name.startswith(".")
    root = ensure_world(tmp_path, size=TINY)
    assert content_sha256(root) == content_sha256(tiny_world)
    assert [path for path in (tmp_path / "world").iterdir() if path.is_dir()] == [root]


def test_workers_that_outlive_a_killed_generation_do_not_hold_its_lock(tmp_path: Path, tiny_world: Path) -> None:
    process = start(tmp_path, cores=2)
    assert started_images(process)
    process.kill()  # this process only, not the workers it has forked
    process.wait()
    successor = start(tmp_path)
    try:
        assert "made" in successor.communicate(timeout=60)[0]
    finally:
        successor.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    (root,) = (path for path in (tmp_path / "world").iterdir() if path.is_dir())
    assert content_sha256(root) == content_sha256(tiny_world)


def test_two_processes_at_once_end_with_one_world(tmp_path: Path, tiny_world: Path) -> None:
    both = [start(tmp_path), start(tmp_path)]
    printed = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("statements" in text for text in printed) == 1, "the second waits for the first"
    folders = [path for path in (tmp_path / "world").iterdir() if path.is_dir()]
    assert [content_sha256(folder) for folder in folders] == [content_sha256(tiny_world)]


def test_a_world_without_its_card_is_made_anew(tmp_path: Path) -> None:
    root = ensure_world(tmp_path, size=SMALL)
    before = content_sha256(root)
    (root / "world.json").unlink()
    (root / "vocab.txt").unlink()
    assert content_sha256(ensure_world(tmp_path, size=SMALL)) == before


def test_an_interrupted_generation_cleans_up(tmp_path: Path) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_world(tmp_path, size=SMALL, progress=interrupt)
    assert not [path for path in (tmp_path / "world").iterdir() if path.is_dir()]


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*world") as raised:
        ensure_world(tmp_path / "file", size=SMALL)
    assert raised.value.exit_code == ExitCode.DATA


def test_a_card_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert not is_world(tmp_path)
    for text in ("{", "{}", '{"version": "x"}'):
        (tmp_path / "world.json").write_text(text)
        with pytest.raises(DataError, match=r"world\.json.*delete"):
            world_info(tmp_path)


def test_the_world_needs_no_torch() -> None:
    code = "import sys, vlbench.world.generate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
