"""Fixtures for all tests: an offline world in a cache of its own, and the real samples where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Small real samples kept outside the project; `$VLBENCH_SAMPLES` or `../shared/data` beside the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("VLBENCH_SAMPLES", default))
    if not folder.is_dir():
        pytest.skip(f"no real samples at {folder}")
    return folder
