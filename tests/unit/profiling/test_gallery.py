"""Which galleries are searched, and how the cost of the others is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlbench.core.profile import GalleryQuery, ProfileSpec
from vlbench.profiling import gallery, memory
from vlbench.profiling.build import BuiltModel, build_model
from vlbench.profiling.gallery import Stopwatch
from vlbench.profiling.inputs import make_texts, write_images
from vlbench.profiling.stages import ModelInputs, StagedModel
from vlbench.profiling.stopping_rule import StoppingRule
from vlbench.profiling.timing import Durations, run_once

CPU = torch.device("cpu")
SPEC = ProfileSpec(models=("brivl",), size="tiny", picture=(96, 64), detector=False)
LOOSE = StoppingRule(2, 0.0, 10.0)
"""Six iterations."""


@pytest.fixture
def model(tmp_path: Path) -> tuple[BuiltModel, StagedModel]:
    """A dual encoder after a pass."""
    return ran("brivl", tmp_path)


def ran(name: str, folder: Path) -> tuple[BuiltModel, StagedModel]:
    """A model after a pass."""
    inputs = ModelInputs(write_images(folder / "p", (96, 64), 1, 0), make_texts(1, 12, 0))
    built = build_model(name, SPEC, folder, CPU)
    staged = built.with_inputs(inputs, CPU)
    with torch.inference_mode():
        run_once(staged.stages(), CPU)
    assert isinstance(staged, StagedModel)
    return built, staged


def query_costs(model: tuple[BuiltModel, StagedModel], seconds: float = 60.0) -> dict[int, GalleryQuery]:
    watch = Stopwatch(LOOSE, seconds, CPU, lambda *_: None, lambda _: None)
    with torch.inference_mode():
        return {query.gallery: query for query in gallery.measure_queries(*model, watch)}


def fail_above(rows: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of more rows cannot be made."""
    make = torch.randn

    def randn(*size: Any, **rest: Any) -> torch.Tensor:
        if size[0] > rows:
            raise error
        return make(*size, **rest)

    monkeypatch.setattr(torch, "randn", randn)


def measured(queries: dict[int, GalleryQuery]) -> list[int]:
    return [size for size, query in queries.items() if query.measured]


def test_a_gallery_larger_than_free_memory(
    model: tuple[BuiltModel, StagedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    width = model[0].model.embed_texts(model[1].forward.textual).shape[1]  # type: ignore[union-attr,arg-type]
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2 * 4 * 1000 * width)
    queries = query_costs(model)
    assert measured(queries) == [100, 1000]
    more = [queries[size].ms - queries[size // 10].ms for size in (100_000, 1_000_000)]
    assert more[1] == pytest.approx(10 * more[0])  # in proportion


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory_ends_the_measuring_and_not_the_model(
    error: Exception, model: tuple[BuiltModel, StagedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    fail_above(1000, error, monkeypatch)
    queries = query_costs(model)
    assert [*queries] == [*gallery.GALLERIES] and measured(queries) == [100, 1000]


def test_an_index_that_takes_too_long_to_make_is_not_made(
    model: tuple[BuiltModel, StagedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stopwatch, "left", 0.0)
    queries = query_costs(model)
    assert [*queries] == [*gallery.GALLERIES] and measured(queries) == [100]


def test_as_many_pairs_as_there_is_time_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair takes 1 s, and 16.5 s are left for three passes."""
    kept: dict[str, int] = {}
    pairs: list[int] = []
    watch = Stopwatch(LOOSE, 60.0, CPU, lambda _, batch, what: kept.update({what: batch}), lambda _: None)
    model = ran("vilt", tmp_path)
    monkeypatch.setattr(Stopwatch, "estimate_seconds", lambda *_: 1.0)
    monkeypatch.setattr(Stopwatch, "left", 16.5)
    monkeypatch.setattr(model[1].head, "forward", lambda features: pairs.append(len(features.pooled)) or torch.zeros(5))
    with torch.inference_mode():
        queries = {query.gallery: query for query in gallery.measure_queries(*model, watch)}
    assert set(pairs) == {5} and kept == {"read": 1, "read, pairs": 5} and measured(queries) == []
    more = [queries[size].ms - queries[size // 10].ms for size in (10_000, 100_000)]
    assert more[1] == pytest.approx(10 * more[0]) and queries[100].ms > 0


def test_a_single_pair_where_there_is_no_time_for_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ran("vilt", tmp_path)
    monkeypatch.setattr(Stopwatch, "left", 5.0)
    monkeypatch.setattr(Stopwatch, "estimate_seconds", lambda *_: 1.0)
    queries = query_costs(model)
    assert measured(queries) == [] and queries[1000].ms == pytest.approx(1_000_000, rel=0.01)


def test_all_hundred_pairs_where_there_is_time(tmp_path: Path) -> None:
    queries = query_costs(ran("vilt", tmp_path))
    assert [*queries] == [*gallery.GALLERIES] and measured(queries) == [100]


def test_raw_durations_are_kept(model: tuple[BuiltModel, StagedModel]) -> None:
    kept: dict[str, Durations] = {}
    watch = Stopwatch(LOOSE, 60.0, CPU, lambda durations, _, what: kept.update({what: durations}), lambda _: None)
    with torch.inference_mode():
        queries = {query.gallery: query for query in gallery.measure_queries(*model, watch)}
    medians = [1000 * np.median(kept[what].whole) for what in ("read, embed", "search 1,000")]
    assert queries[1000].ms == pytest.approx(sum(medians))


def test_other_faults_are_raised(model: tuple[BuiltModel, StagedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    fail_above(1000, RuntimeError("no such thing"), monkeypatch)
    with pytest.raises(RuntimeError, match="no such thing"):
        query_costs(model)
    fail_above(10, MemoryError("not even 100"), monkeypatch)
    with pytest.raises(MemoryError, match="not even 100"):
        query_costs(model)
