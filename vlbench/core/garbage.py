"""Where Python's garbage collector does not run: it looks for cycles, and goes through all objects to find them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Records, examples and predictions are many small objects without cycles: collecting makes reading them two to
    three times slower.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def existing_objects_kept() -> Iterator[None]:
    """Collecting leaves out the objects that exist now: the data, and more than a million of the libraries."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
