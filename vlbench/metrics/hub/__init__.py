"""The metrics as modules of `evaluate`, one file each, loaded by path: `evaluate.load(str(path("accuracy")))`.

They need no network. The values are those of `vlbench.metrics` and of the tasks, in percent, at full precision.
"""

from __future__ import annotations

from pathlib import Path

from vlbench.core.errors import unknown


def path(name: str) -> Path:
    """The file of the metric module `name`. Raises VlbenchError: no such module; the message suggests near misses."""
    files = {file.stem: file for file in Path(__file__).parent.glob("*.py") if file.name != "__init__.py"}
    if name not in files:
        raise unknown("metric module", name, files)
    return files[name]
