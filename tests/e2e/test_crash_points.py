"""Killed at any point, a command run again ends as if nothing had happened, and leaves no other file."""

from __future__ import annotations

import http.server
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest
import yaml

from vlbench import catalog
from vlbench.engine import execute as _execute  # noqa: F401  # imported once, before processes are forked
from vlbench.engine.pretraining import pretrain as _pretrain  # noqa: F401
from vlbench.report.html import run_page as _run_page  # noqa: F401
from vlbench.world import generate

COMMANDS = ("finetune", "eval", "rank", "world", "features", "pretrain", "leaderboard", "report", "gate", "fetch")
SAMPLED = 10
SMALLEST = generate.WorldSize(1, 1, 1, 1)


@pytest.fixture(scope="module")
def crash_points(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("crash_points")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of a file and an archive of two files."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "train.json").write_text("{}" * 5000)
    packed = folder / "packed" / "images"
    packed.mkdir(parents=True)
    for name in "ab":
        (packed / f"{name}.txt").write_text(name)
    shutil.make_archive(str(folder / "images"), "zip", folder / "packed")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def make_case(
    crash_points: ModuleType, tiny_world: Path, fake_run: Path, tmp_path_factory: pytest.TempPathFactory, served: str
) -> Callable[[str], Any]:
    """Makes the case of a command."""
    run = ("run", "--data-root", tiny_world, "--quiet")

    def make(command: str) -> Any:
        folder = tmp_path_factory.mktemp(command) / "work"
        here = partial(_inputs, fake_run, served)
        arguments: dict[str, tuple[object, ...]] = {
            "finetune": (
                *run, "--task", "snli_ve", "--model", "fake", "--checkpoint", "none", "--limit", 8,
                "--batch-size", 4, "--steps", 2,
                "--save-every", 1, "--controls", "blind", "--set", "train.evaluations=2", "--set", "train.ema=0.9",
                "--output-path", folder / "runs",
            ),
            "eval": (
                *run, "--task", "nlvr2", "--model", "fake", "--mode", "eval", "--checkpoint", folder / "run",
                "--limit", 24, "--eval-batch-size", 8, "--controls", "none", "--output-path", folder / "runs",
            ),
            "rank": (
                *run, "--task", "coco_retrieval", "--model", "vilt", "--checkpoint", "none", "--limit", 4,
                "--batch-size", 4, "--steps", 1, "--select-on", "none", "--controls", "none",
                "--eval-batch-size", 16, "--output-path", folder / "runs",
            ),
            "world": ("data", "world", "--quiet"),
            "features": (
                "data", "features", "--task", "nlvr2", "--data-root", tiny_world, "--split", "dev",
                "--output", folder / "features", "--overwrite", "--quiet",
            ),
            "pretrain": (
                "pretrain", "--model", "cvlp", "--data-root", tiny_world, "--steps", 3, "--batch-size", 4,
                "--save-every", 1, "--quiet", "--output-path", folder / "pretrained",
            ),
            "leaderboard": ("leaderboard", folder / "run", "--inject", folder / "page.md"),
            "report": ("report", folder / "run", "--html", folder / "report.html"),
            "gate": (
                "gate", folder / "run", "--baseline", folder / "baseline.json", "--update-baseline",
                "--reason", "first",
            ),
            "fetch": (
                "data", "fetch", "mine", "--tasks-dir", folder / "tasks", "--data-root", folder / "data", "--quiet",
            ),
        }  # fmt: skip
        return crash_points.Case(folder, arguments[command], here)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(generate.ensure_world.__kwdefaults__, "size", SMALLEST)  # what `data world` makes
        yield make


def _inputs(fake_run: Path, served: str, folder: Path) -> None:
    """What the commands read: a finished run, a page and a task whose files lie on the server."""
    shutil.copytree(fake_run, folder / "run")
    (folder / "page.md").write_text("<!-- vlbench:begin -->\n<!-- vlbench:end -->\n")
    card = catalog.task_card("nlvr2").model_dump(mode="json", exclude_defaults=True) | {"name": "mine"}
    task = folder / "tasks" / "mine"
    task.mkdir(parents=True)
    (task / "task.yaml").write_text(yaml.safe_dump(card))
    sources = [
        {"url": f"{served}/train.json", "to": "mine", "gives": ["train.json"]},
        {"url": f"{served}/images.zip", "to": "mine", "gives": ["images"], "unpack": True},
    ]
    (task / "downloads.yaml").write_text(yaml.safe_dump({"sources": sources}))


def test_sampled_points(make_case: Callable[[str], Any], crash_points: ModuleType) -> None:
    seed = int(os.environ.get("CRASH_SEED", Random().randrange(10**6)))
    print(f"CRASH_SEED={seed}")
    rng = Random(seed)
    for command in rng.sample(COMMANDS, SAMPLED // 2):
        case = make_case(command)
        points = case.points()
        expected = case.left()
        assert list(crash_points.survivors(case, rng.sample(points, min(2, len(points))), expected)) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_point(command: str, make_case: Callable[[str], Any], crash_points: ModuleType) -> None:
    case = make_case(command)
    points = case.points()
    expected = case.left()
    assert points == list(dict.fromkeys(points))
    assert list(crash_points.survivors(case, points, expected)) == []
