"""The same attempts in a process that may take 2 GiB more than its libraries do, and a while."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIMITED = """
import resource, sys
import pandas, pyarrow.parquet, pytest, torch, transformers
from vlbench.cli.main import main
held = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData:")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (held + 2 * 2**30,) * 2)
sys.exit(pytest.main(["-q", "--tb=short", *sys.argv[1:]]))
"""
FILES = ("test_annotations.py", "test_binaries.py", "test_cards.py", "test_records.py")
PATIENCE = 1800


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="no limit on a process's data elsewhere")
def test_within_two_gib(cache: Path) -> None:
    files = [str(Path(__file__).with_name(name)) for name in FILES]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *files],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "VLBENCH_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
