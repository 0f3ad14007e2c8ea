from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.records.lock import run_lock

HOLDER = """
import sys, time
from pathlib import Path
from vlbench.records.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
WRITERS = """
import sys, time
from pathlib import Path
from vlbench.core.errors import VlbenchError
from vlbench.records.lock import run_lock
folder = Path(sys.argv[1])
while not (folder / "go").exists():
    time.sleep(0.001)
try:
    with run_lock(folder):
        print("won", flush=True)
        while not (folder / "done").exists():
            time.sleep(0.01)
except VlbenchError:
    print("lost", flush=True)
"""


def test_second_holder_is_told_who_has_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "held\n"
            message = rf"another run of the same spec \(process {holder.pid}\): wait for it.*--output-path"
            with pytest.raises(VlbenchError, match=message), run_lock(tmp_path):
                pass
        finally:
            os.kill(holder.pid, signal.SIGKILL)
    with run_lock(tmp_path):
        assert int((tmp_path / ".lock").read_text()) == os.getpid()


def test_released_after_the_block_and_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), run_lock(tmp_path):
        raise KeyError
    with run_lock(tmp_path), pytest.raises(VlbenchError), run_lock(tmp_path):
        pass
    with run_lock(tmp_path):
        pass


def test_one_of_many_wins(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITERS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    (tmp_path / "go").touch()
    said = []
    for writer in writers:
        assert writer.stdout is not None
        said.append(writer.stdout.readline().strip())
    (tmp_path / "done").touch()
    for writer in writers:
        writer.communicate()
    assert sorted(said) == ["lost"] * 3 + ["won"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VlbenchError, match="cannot be locked") as raised, run_lock(tmp_path / "absent"):
        pass
    assert raised.value.exit_code == ExitCode.DATA
