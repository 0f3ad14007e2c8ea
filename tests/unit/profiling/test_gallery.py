"""Which galleries are searched, and what is computed of those that are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vlbench.core.profile import ProfileSpec, Query
from vlbench.profiling import gallery, memory
from vlbench.profiling.build import Opened, open_model
from vlbench.profiling.inputs import sentences, write_pictures
from vlbench.profiling.subject import Batch, SeeReadFuse
from vlbench.profiling.timing import once

CPU = torch.device("cpu")
SPEC = ProfileSpec(models=("brivl",), size="tiny", iterations=2, max_seconds=0.1, picture=(96, 64), detector=False)


@pytest.fixture
def model(tmp_path: Path) -> tuple[Opened, SeeReadFuse]:
    """One that embeds, after a pass."""
    batch = Batch(write_pictures(tmp_path / "p", (96, 64), 1, 0), sentences(1, 12, 0))
    opened = open_model("brivl", SPEC, tmp_path, CPU)
    subject = opened.subject(batch, CPU)
    with torch.inference_mode():
        once(subject.stages(), CPU)
    assert isinstance(subject, SeeReadFuse)
    return opened, subject


def found(model: tuple[Opened, SeeReadFuse]) -> dict[int, Query]:
    with torch.inference_mode():
        return {query.gallery: query for query in gallery.gallery_costs(*model, SPEC, CPU)}


def fail_above(rows: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of more rows cannot be made."""
    make = torch.randn

    def randn(*size: Any, **rest: Any) -> torch.Tensor:
        if size[0] > rows:
            raise error
        return make(*size, **rest)

    monkeypatch.setattr(torch, "randn", randn)


def measured(queries: dict[int, Query]) -> list[int]:
    return [size for size, query in queries.items() if query.measured]


def test_a_gallery_that_free_memory_does_not_hold(
    model: tuple[Opened, SeeReadFuse], monkeypatch: pytest.MonkeyPatch
) -> None:
    width = model[0].model.embed_texts(model[1].was_read).shape[1]  # type: ignore[union-attr,arg-type]
    monkeypatch.setattr(memory, "free", lambda device: 2 * 4 * 1000 * width)
    queries = found(model)
    assert measured(queries) == [100, 1000]
    more = [queries[size].ms - queries[size // 10].ms for size in (100_000, 1_000_000)]
    assert more[1] == pytest.approx(10 * more[0])  # in proportion


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory_ends_the_measuring_and_not_the_model(
    error: Exception, model: tuple[Opened, SeeReadFuse], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free", lambda device: None)
    fail_above(1000, error, monkeypatch)
    queries = found(model)
    assert [*queries] == [*gallery.GALLERIES] and measured(queries) == [100, 1000]


def test_other_faults_are_raised(model: tuple[Opened, SeeReadFuse], monkeypatch: pytest.MonkeyPatch) -> None:
    fail_above(1000, RuntimeError("no such thing"), monkeypatch)
    with pytest.raises(RuntimeError, match="no such thing"):
        found(model)
    fail_above(10, MemoryError("not even 100"), monkeypatch)
    with pytest.raises(MemoryError, match="not even 100"):
        found(model)
