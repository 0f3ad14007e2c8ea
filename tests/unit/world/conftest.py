"""A tiny world, made once for all tests of the world."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlbench.world.generate import TINY, ensure_world


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_world(tmp_path_factory.mktemp("cache"), size=TINY)
