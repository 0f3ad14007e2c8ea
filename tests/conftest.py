"""Fixtures for all tests: an offline world in a cache of its own, and the real samples where they are at hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from vlbench.world.generate import TINY, ensure_world

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # several workers share few cores, and every model here is tiny


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
        patch.delenv("VLBENCH_DATA", raising=False)
        patch.delenv("VLBENCH_TASKS", raising=False)
        yield folder


@pytest.fixture(scope="session")
def tiny_world(cache: Path) -> Path:
    """The root of a world of 480 examples; not to be changed."""
    return ensure_world(cache, size=TINY)


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
