"""Fixtures for all tests: an offline world in a cache of its own, and the real samples where they are at hand."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vlbench.world.generate import TINY, ensure_world

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # several workers share few cores, and every model here is tiny


def pytest_collection_finish() -> None:
    """Exempt what collecting has imported from garbage collection.

    Every run collects garbage when it ends, and would go through more than a million objects of libraries.
    """
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class Done:
    """What a command line left: its exit code and what it wrote to both streams."""

    code: int
    out: str
    err: str

    @property
    def run(self) -> Path:
        """The run's folder, which `vlbench run` prints last."""
        return Path(self.out.splitlines()[-1])


Command = Callable[..., Done]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the session's own instead of the user's, and no data or tasks from the user's environment."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("VLBENCH_CACHE", str(folder))
        patch.setenv("VLBENCH_JOBS", "1")  # most tests look into the process that does the work
        patch.delenv("VLBENCH_DATA", raising=False)
        patch.delenv("VLBENCH_TASKS", raising=False)
        yield folder


@pytest.fixture(scope="session")
def tiny_world(cache: Path) -> Path:
    """The root of a world of 480 examples; not to be changed."""
    return ensure_world(cache, size=TINY)


@pytest.fixture(scope="session")
def fake_run(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the fake model, over a whole split; not to be changed."""
    from vlbench.cli.main import main

    runs = tmp_path_factory.mktemp("runs")
    arguments = ["run", "--task", "nlvr2", "--model", "fake", "--steps", "1", "--controls", "none", "--quiet"]
    assert main([*arguments, "--data-root", str(tiny_world), "--output-path", str(runs)]) == 0
    (record,) = runs.rglob("run.json")
    return record.parent


@pytest.fixture
def vlbench(capsys: pytest.CaptureFixture[str]) -> Command:
    """Call the command line within this process."""
    from vlbench.cli.main import main

    def call(*arguments: object) -> Done:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Small real samples kept outside the project; `$VLBENCH_SAMPLES` or `../shared/data` beside the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("VLBENCH_SAMPLES", default))
    if not folder.is_dir():
        pytest.skip(f"no real samples at {folder}")
    return folder


@pytest.fixture(scope="session")
def golden_case() -> Callable[[str, str], Any]:
    """Reads a golden case by model and name, a `golden_cases.GoldenCase`."""
    load: Callable[[str, str], Any] = _beside("golden_cases").load_case
    return load


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden numbers (tests/golden/README.md), for cases that hold no tensors."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def edit_record() -> Callable[..., None]:
    """`edit_record(run, change)`: changes the values of a record and seals it again, as somebody does who knows how."""
    edit: Callable[..., None] = _beside("sealed").edit_record
    return edit


MakeHF = Callable[..., Path]


@pytest.fixture(scope="session")
def make_hf(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeHF:
    """Save a tiny random model of transformers, by its architecture, over the words of the world and those given.

    It is made once; the folder is not to be changed.
    """
    spoken = (tiny_world / "vocab.txt").read_text(encoding="utf8").split()
    made: dict[str, Path] = {}

    def make(architecture: str, answers: tuple[str, ...] = (), words: tuple[str, ...] = (), **changes: Any) -> Path:
        key = repr((architecture, answers, words, changes))
        if key not in made:
            folder = tmp_path_factory.mktemp("hf") / architecture.lower()
            made[key] = _beside("tiny_hf").save(folder, architecture, (*spoken, *words), answers, **changes)
        return made[key]

    return make


@pytest.fixture(scope="session")
def make_vlm(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Save a tiny random model that writes, by its `model_type`: a loop over it, with its `folder`.

    It is made once; the folder is not to be changed.
    """
    made: dict[str, Any] = {}

    def make(model_type: str) -> Any:
        if model_type not in made:
            tiny_vlm = _beside("tiny_vlm")
            made[model_type] = tiny_vlm.Loop(tiny_vlm.save(tmp_path_factory.mktemp("vlm") / model_type, model_type))
        return made[model_type]

    return make


@pytest.fixture(scope="session")
def tiny_detector() -> ModuleType:
    """Makes tiny random detectors, and saves their weights under published names."""
    return _beside("tiny_detector")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium with one page, a `Browser`."""
    module = _beside("browser")
    program = module.executable()
    if program is None:
        pytest.skip(f"no Chromium here: none of {', '.join(module.NAMES)} is installed")
    started = module.Browser(program, tmp_path_factory.mktemp("chromium"))
    yield started
    started.close()


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """Imports a script of this folder by its name."""
    return _beside


@lru_cache
def _beside(name: str) -> ModuleType:
    """A module of this folder; imported late, since transformers costs seconds that other tests need not wait for."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks up the module it is defined in
    spec.loader.exec_module(module)
    return module
