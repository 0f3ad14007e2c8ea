"""Runs that take about a second: few steps, small batches, the tiny world."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import yaml

from vlbench import __version__
from vlbench.core.record import Environment, ModelInfo, Result, RunRecord, TaskInfo, ToolInfo
from vlbench.core.spec import RunSpec
from vlbench.records.folder import RunFolder
from vlbench.records.samples import SampleRow, write_samples

QUICK = ("--steps", 4, "--batch-size", 8, "--set", "train.evaluations=2", "--controls", "none", "--quiet")


@pytest.fixture
def quick(tiny_world: Path, tmp_path: Path) -> list[object]:
    """A quick run of a model to be named; its folder is `runs` below the test's own."""
    return ["run", "--task", "nlvr2", "--data-root", tiny_world, "--output-path", tmp_path / "runs", *QUICK]


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory, tiny_world: Path) -> list[Path]:
    """Two quick runs of the fake model that differ in their seed."""
    from vlbench.cli.main import main

    place = tmp_path_factory.mktemp("runs")
    for seed in ("0", "1"):
        arguments = ["run", "--task", "nlvr2", "--model", "fake", "--data-root", str(tiny_world), "--seed", seed]
        arguments += ["--steps", "4", "--batch-size", "8", "--controls", "none", "--quiet", "--output-path", str(place)]
        assert main(arguments) == 0
    return sorted(path.parent for path in place.rglob("run.json"))


@pytest.fixture(scope="session")
def report(two_runs: list[Path]) -> Path:
    """The page of both runs."""
    from vlbench.cli.main import main

    page = two_runs[0] / "both.html"
    assert main(["report", *map(str, two_runs), "--html", str(page)]) == 0
    return page


@pytest.fixture(scope="session")
def hostile_texts() -> tuple[str, ...]:
    """Texts that a page must show as they are, or spell out."""
    return (
        "</script><script>window.taken=1</script>",
        '<img src=x onerror="window.taken=1">',
        "\u202eright to left \u05e9\u05dc\u05d5\u05dd\u202c",
        "👩\u200d🔬 measures",
        "a\x00b\x1b[31mred\x07",
        "x" * 5000,
    )


@pytest.fixture
def hostile_run(tmp_path: Path, hostile_texts: tuple[str, ...]) -> Path:
    """A run whose every text is hostile."""
    texts = hostile_texts
    rows = [
        SampleRow(
            example_id=text[:300], split=text[:300], group=text, text=text, image_ids=(text[:300],),
            reference='{"value": "a"}', prediction=text, confidence=0.5, score=float(place % 2), status="error",
            error=text, labels=(text,), label_scores=(0.5,), written=text, tags={"kind": text},
        )
        for place, text in enumerate(texts)
    ]  # fmt: skip
    folder = tmp_path / "hostile"
    folder.mkdir()
    result = Result(
        metric="accuracy", value=50.0, n=6,
        slices={texts[0]: {text: Result(metric="accuracy", value=50.0, n=1) for text in texts}},
    )  # fmt: skip
    record = RunRecord(
        status="done", fingerprint="0" * 16, spec=RunSpec(task="nlvr2", model=texts[1], size=texts[0]),
        tool=ToolInfo(version=__version__),
        model=ModelInfo(name=texts[1] + texts[2], size=texts[0], parameters=1, from_scratch=False),
        task=TaskInfo(
            name="nlvr2", version=1, source="real", manifest_sha256="m", split=texts[0], n_total=6, n_scored=6,
            main_metric="accuracy", notes=texts,
        ),
        environment=Environment(python="3", libraries={texts[0]: texts[1]}, cpu=texts[1], threads=1),
        started=texts[0], results=(result,),
    )  # fmt: skip
    write_samples(folder / "samples.parquet", rows)
    RunFolder(folder).write_record(record)
    return folder


@pytest.fixture
def predictions() -> Callable[[Path], pd.DataFrame]:
    """What a run answered, with every probability."""
    return lambda run: pd.read_parquet(run / "samples.parquet")


@pytest.fixture
def small_nlvr2(tmp_path: Path) -> Path:
    """A folder with eight real-looking examples in train, dev and test1 each, without pictures."""
    root = tmp_path / "data"
    for split in ("train", "dev", "test1"):
        write_lines(root / "data" / f"{split}.json", (line(split, number) for number in range(8)))
    return root


@pytest.fixture
def make_line() -> Callable[[str, int], dict[str, object]]:
    """One line of an official NLVR2 file."""
    return line


def line(split: str, number: int) -> dict[str, object]:
    sentence = f"There are {number // 2} dogs."
    label = str(number % 2 == 0)
    identifier = f"{split}-{number // 2}-{number % 2}-0"
    return {"identifier": identifier, "sentence": sentence, "label": label, "directory": 3, "synset": "dog"}


def write_lines(path: Path, lines: Iterable[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf8")


@pytest.fixture(scope="session")
def crash_points(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("crash_points")


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def make_case(
    crash_points: ModuleType, tiny_world: Path, fake_run: Path, tmp_path_factory: pytest.TempPathFactory, served: str
) -> Iterator[Callable[[str], Any]]:
    """Makes the `crash_points.Case` of a command by its name."""
    from vlbench.engine import execute  # noqa: F401  # imported once, before processes are forked
    from vlbench.engine.pretraining import pretrain  # noqa: F401
    from vlbench.report.html import run_page  # noqa: F401
    from vlbench.world import generate

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
        patch.setitem(
            generate.ensure_world.__kwdefaults__, "size", generate.WorldSize(1, 1, 1, 1)
        )  # what `data world` makes
        yield make


def _inputs(fake_run: Path, served: str, folder: Path) -> None:
    """What the commands read: a finished run, a page and a task whose files lie on the server."""
    shutil.copytree(fake_run, folder / "run")
    (folder / "page.md").write_text("<!-- vlbench:begin -->\n<!-- vlbench:end -->\n")
    from vlbench import catalog

    card = catalog.task_card("nlvr2").model_dump(mode="json", exclude_defaults=True) | {"name": "mine"}
    task = folder / "tasks" / "mine"
    task.mkdir(parents=True)
    (task / "task.yaml").write_text(yaml.safe_dump(card))
    sources = [
        {"url": f"{served}/train.json", "to": "mine", "gives": ["train.json"]},
        {"url": f"{served}/images.zip", "to": "mine", "gives": ["images"], "unpack": True},
    ]
    (task / "downloads.yaml").write_text(yaml.safe_dump({"sources": sources}))
