"""`vlbench` whose fake model has a fault in one process: `FAULT=kill:1:3 python faulty.py run ...`.

The third batch that process 1 answers kills it; with `data` it finds damaged data, with `train` it does so in training.
Without `FAULT` there is none.
"""

from __future__ import annotations

import os
import signal

from vlbench.cli.main import entry
from vlbench.core.backbone import Features, Textual, Visual
from vlbench.core.errors import DataError
from vlbench.models.fake.backbone import Fake

KIND, RANK, CALL = (os.environ.get("FAULT", "none:0:0")).split(":")
whole = Fake.fuse
called = 0


def fuse(self: Fake, seen: Visual, read: Textual) -> Features:
    global called
    called += self.training == (KIND == "train")
    if called == int(CALL) and os.environ.get("RANK") == RANK and KIND != "none":
        if KIND == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise DataError("the picture 7.png is damaged")
    return whole(self, seen, read)


Fake.fuse = fuse  # type: ignore[method-assign]

if __name__ == "__main__":
    entry()
