from __future__ import annotations

import gc

from vlbench.core.garbage import existing_objects_kept, without_garbage_collection


def test_garbage_is_collected_again_afterwards() -> None:
    with without_garbage_collection():
        assert not gc.isenabled()
        with without_garbage_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_only_new_objects_are_looked_through() -> None:
    with existing_objects_kept():
        exempt = gc.get_freeze_count()
        new: list[object] = [[]]
        new.append(new)
        del new
        assert exempt and gc.collect() >= 1
    assert gc.get_freeze_count() < exempt
