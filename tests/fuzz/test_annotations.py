"""Changed annotation files of every task of the world: a sentence or examples that can be scored."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlbench import catalog
from vlbench.core.results import MetricAbsentError
from vlbench.core.task import Task
from vlbench.data.cache.index import annotation_files
from vlbench.metrics.baseline import majority
from vlbench.world.generate import world_info

TASKS = ("vqa2", "gqa", "nlvr2", "snli_ve", "coco_retrieval", "flickr30k_retrieval")
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")


@pytest.fixture(scope="module")
def data(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Task, list[Path]]]:
    """A copy of each task's annotations of the reported split, without pictures."""
    assert set(TASKS) == set(world_info(tiny_world).counts)
    found = {}
    for name in TASKS:
        theirs = catalog.task_root(tiny_world, name)
        root = tmp_path_factory.mktemp(name)
        task = catalog.load_task(name, theirs, "world")
        tables = []
        for _, path in annotation_files(task.files(task.card.report_split)):
            copy = root / path.relative_to(theirs)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
            tables.append(copy)
        found[name] = (catalog.load_task(name, root, "world"), tables)
    return found


def attempt(task: Task, tables: list[Path], rng: Random, mutate: Callable[..., bytes], allowed: Any) -> None:
    table = rng.choice(tables)
    content = table.read_bytes()
    try:
        table.write_bytes(mutate(content, rng))
        with allowed():
            examples = task.load(task.card.report_split)
            assert len({example.id for example in examples}) == len(examples)
            for ref in (ref for example in examples for ref in example.query.images):
                place = ref.path.resolve()
                assert place.is_relative_to(task.root.resolve()), f"{ref.path} leads out of the data root"
            if task.card.output != "rank":
                for metric in task.metrics.values():
                    with contextlib.suppress(MetricAbsentError):
                        majority(metric, examples)
    finally:
        table.write_bytes(content)


@pytest.mark.parametrize("name", TASKS)
@settings(max_examples=60)
@given(rng=st.randoms(use_true_random=False))
def test_annotations(name: str, rng: Random, data: Any, mutate: Any, sentence_or_result: Any) -> None:
    attempt(*data[name], rng, mutate, sentence_or_result)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
@settings(max_examples=500, derandomize=False)
@given(rng=st.randoms(use_true_random=False))
def test_annotations_for_long(name: str, rng: Random, data: Any, mutate: Any, sentence_or_result: Any) -> None:
    attempt(*data[name], rng, mutate, sentence_or_result)
