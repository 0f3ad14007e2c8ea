from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
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
PARENT = """
import os, sys, time
from pathlib import Path
from vlbench.records.lock import run_lock
with run_lock(Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
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
            host = re.escape(socket.gethostname())
            message = rf"another run of the same spec \(process {holder.pid} on {host}\): wait for it.*--output-path"
            with pytest.raises(VlbenchError, match=message), run_lock(tmp_path):
                pass
        finally:
            os.kill(holder.pid, signal.SIGKILL)
    with run_lock(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()} {socket.gethostname()}"
    assert (tmp_path / ".lock").read_text() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is forked there")
def test_what_a_holder_forked_neither_ends_nor_prolongs_its_lock(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(VlbenchError, match=rf"process {holder.pid} on"), run_lock(tmp_path):
                pass
            holder.kill()
            holder.wait()
            os.kill(child, 0)  # the child lives on
            with run_lock(tmp_path):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_holder_of_another_machine_is_named_and_not_waited_for(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        (tmp_path / ".lock").write_text("999999999 elsewhere")
        started = time.monotonic()
        with pytest.raises(VlbenchError, match=r"\(process 999999999 on elsewhere\)"), run_lock(tmp_path):
            pass
    assert time.monotonic() - started < 5


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
