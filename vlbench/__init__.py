"""Benchmark and evaluation harness for vision-language pretrained models.

Importing this loads nothing heavy; each public name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlbench.catalog import load_model
    from vlbench.core.spec import RunSpec
    from vlbench.engine.evaluate import evaluate
    from vlbench.engine.score import score_file as score
    from vlbench.engine.source import load_task
    from vlbench.report.compare.comparison import compare_runs as compare

__version__ = "0.2.0"
__all__ = ["RunSpec", "__version__", "compare", "evaluate", "load_model", "load_task", "score"]

_HOMES = {
    "RunSpec": ("vlbench.core.spec", "RunSpec"),
    "compare": ("vlbench.report.compare.comparison", "compare_runs"),
    "evaluate": ("vlbench.engine.evaluate", "evaluate"),
    "load_model": ("vlbench.catalog", "load_model"),
    "load_task": ("vlbench.engine.source", "load_task"),
    "score": ("vlbench.engine.score", "score_file"),
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'vlbench' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
