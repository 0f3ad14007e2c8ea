"""`vlbench` whose fake model has a fault in one process: `FAULT=kill:1:3 python faulty.py run ...`.

The third batch that process 1 answers kills it; with `data` it finds damaged data, with `train` it does so in training,
with `exit` it ends its process as if all was done, with `thread` it starts a thread that never ends and leaves a log
open. With `late` the process never meets the others. Without `FAULT` there is none. `FAULT_LOG` is the log's path.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import TextIO

from vlbench.cli.main import entry
from vlbench.core.backbone import Features, Textual, Visual
from vlbench.core.errors import DataError
from vlbench.engine.runtime import ranks
from vlbench.models.fake.backbone import Fake

KIND, RANK, CALL = (os.environ.get("FAULT", "none:0:0")).split(":")
whole, meet = Fake.fuse, ranks._meet
called = 0
logs: list[TextIO] = []


def fuse(self: Fake, seen: Visual, read: Textual) -> Features:
    global called
    called += self.training == (KIND == "train")
    if called == int(CALL) and os.environ.get("RANK", "0") == RANK and KIND != "none":
        fail()
    return whole(self, seen, read)


def fail() -> None:
    if KIND == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if KIND == "exit":
        os._exit(0)
    if KIND != "thread":
        raise DataError("the image 7.png is damaged")
    threading.Thread(target=threading.Event().wait).start()
    logs.append(log("batch"))


def log(line: str) -> TextIO:
    file = Path(os.environ["FAULT_LOG"]).open("w")  # noqa: SIM115, since a log that nobody closes is what is tested
    file.write(line)
    return file


def meet_late(own: ranks.Ranks) -> object:
    if KIND == "late" and str(own.rank) == RANK:
        log("late").close()
        time.sleep(600)
    return meet(own)


Fake.fuse, ranks._meet = fuse, meet_late  # type: ignore[method-assign,assignment]

if __name__ == "__main__":
    entry()
