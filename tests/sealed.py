"""Records that a test changes, with a new seal: as somebody writes them who knows how."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlbench.records.folder import RunFolder
from vlbench.records.seal import hashes_of, seal_of

Values = dict[str, Any]


def edit_record(run: Path, change: Callable[[Values], object]) -> None:
    """Change the values of the record in a run's folder, and seal it and the files beside it again."""
    path = run / "run.json"
    values = json.loads(path.read_text(encoding="utf8"))
    change(values)
    values["files"] = hashes_of(RunFolder(run).result_files)
    values["seal"] = seal_of(values)
    path.write_text(json.dumps(values), encoding="utf8")
